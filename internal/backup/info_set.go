package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"manada/internal/blob"
	"manada/internal/repo"
)

// setInfo is what info tells of one backup that was asked for by its label.
type setInfo struct {
	databases  []infoDatabase
	links      []infoLink
	tablespace []infoTablespace
}

type infoDatabase struct {
	Name string `json:"name"`
	OID  uint32 `json:"oid"`
}

type infoLink struct {
	Destination string `json:"destination"`
	Name        string `json:"name"`
}

type infoTablespace struct {
	Destination string `json:"destination"`
	Name        string `json:"name"`
	OID         uint64 `json:"oid"`
}

// only leaves one backup in the list and reads its manifest. A label that is not
// there is a status.
func (s *StanzaInfo) only(ctx context.Context, st blob.Storage, label string) error {
	if s.Status.Code != statusOK.Code && s.Status.Code != statusNoBackup.Code {
		return nil
	}
	s.Backup = slices.DeleteFunc(s.Backup, func(b BackupInfo) bool { return b.Label != label })
	if len(s.Backup) == 0 {
		s.set(statusNoSet)
		s.DB, s.Archive = []InfoDB{}, []ArchiveRange{}
		return nil
	}
	m, err := repo.LoadManifest(ctx, st, s.Name, label)
	if err != nil {
		return err
	}
	return s.Backup[0].detail(m)
}

func (x *BackupInfo) detail(m *repo.Manifest) error {
	x.set = &setInfo{databases: []infoDatabase{}}
	for _, d := range m.Databases {
		if d.Name != "template0" && d.Name != "template1" {
			x.set.databases = append(x.set.databases, infoDatabase{d.Name, d.ID})
		}
	}
	for _, t := range m.Targets {
		name := strings.TrimPrefix(t.Name, repo.TargetData+"/")
		switch {
		case !t.Link:
		case t.TablespaceName != "":
			oid, err := strconv.ParseUint(t.TablespaceID, 10, 32)
			if err != nil {
				return fmt.Errorf("tablespace %s: %w", t.TablespaceName, err)
			}
			x.set.tablespace = append(x.set.tablespace, infoTablespace{t.Path, t.TablespaceName, oid})
		case t.File != "":
			x.set.links = append(x.set.links, infoLink{t.Path + "/" + t.File, t.File})
		default:
			x.set.links = append(x.set.links, infoLink{t.Path, name})
		}
	}
	for i := range m.Files {
		if f := &m.Files[i]; f.ChecksumPageError {
			yes := true
			x.Error, x.ErrorList = &yes, append(x.ErrorList, strings.TrimPrefix(f.Name, repo.TargetData+"/"))
		}
	}
	var err error
	put := func(v any) json.RawMessage {
		b, e := json.Marshal(v) // of nothing: null, which 2.45 writes too
		if e != nil {
			err = e
		}
		return b
	}
	x.DatabaseRef, x.Link, x.Tablespace = put(x.set.databases), put(x.set.links), put(x.set.tablespace)
	return err
}

func (d *setInfo) text(b *strings.Builder) {
	b.WriteString("            database list:")
	if len(d.databases) == 0 {
		b.WriteString(" none")
	}
	for i, db := range d.databases {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, " %s (%d)", db.Name, db.OID)
	}
	b.WriteByte('\n')
	if len(d.links) > 0 {
		b.WriteString("            symlinks:\n")
		for _, l := range d.links {
			fmt.Fprintf(b, "                %s => %s\n", l.Name, l.Destination)
		}
	}
	if len(d.tablespace) > 0 {
		b.WriteString("            tablespaces:\n")
		for _, t := range d.tablespace {
			fmt.Fprintf(b, "                %s (%d) => %s\n", t.Name, t.OID, t.Destination)
		}
	}
}
