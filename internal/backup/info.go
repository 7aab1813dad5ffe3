package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"manada/internal/blob"
	"manada/internal/repo"
)

// Info is what `pgbackrest info` tells. It marshals to the form of
// --output=json: fields are in the alphabetical order of their keys.
type Info []StanzaInfo

// StanzaInfo is one stanza.
type StanzaInfo struct {
	Archive []ArchiveRange `json:"archive"`
	Backup  []BackupInfo   `json:"backup"`
	Cipher  string         `json:"cipher"`
	DB      []InfoDB       `json:"db"`
	Name    string         `json:"name"`
	Repo    []InfoRepo     `json:"repo"`
	Status  InfoStatus     `json:"status"`

	current InfoDB
}

// InfoDBRef names a cluster of the stanza.
type InfoDBRef struct {
	ID      int `json:"id"`
	RepoKey int `json:"repo-key"`
}

// InfoDB identifies a cluster of the stanza.
type InfoDB struct {
	ID       int    `json:"id"`
	RepoKey  int    `json:"repo-key"`
	SystemID uint64 `json:"system-id"`
	Version  string `json:"version"`
}

// ArchiveRange is the first and the last WAL segment of an archive id; null when
// there is none.
type ArchiveRange struct {
	Database InfoDBRef `json:"database"`
	ID       string    `json:"id"`
	Max      *string   `json:"max"`
	Min      *string   `json:"min"`
}

// StartStop is a pair of segments or positions; null when the backup was made
// with the database stopped.
type StartStop struct {
	Start *string `json:"start"`
	Stop  *string `json:"stop"`
}

// BackupInfo is one backup. Times are seconds since 1970, sizes bytes.
type BackupInfo struct {
	Annotation map[string]string `json:"annotation,omitempty"`
	Archive    StartStop         `json:"archive"`
	Backrest   struct {
		Format  int    `json:"format"`
		Version string `json:"version"`
	} `json:"backrest"`
	Database    InfoDBRef       `json:"database"`
	DatabaseRef json.RawMessage `json:"database-ref,omitempty"`
	Error       *bool           `json:"error,omitempty"`
	ErrorList   []string        `json:"error-list,omitempty"`
	Info        struct {
		Delta      int64 `json:"delta"` // bytes of the database that it stores itself
		Repository struct {
			Delta    int64  `json:"delta"` // bytes of the repository that it takes
			DeltaMap *int64 `json:"delta-map,omitempty"`
			Size     *int64 `json:"size,omitempty"` // with those that it refers to
			SizeMap  *int64 `json:"size-map,omitempty"`
		} `json:"repository"`
		Size int64 `json:"size"` // bytes of the database
	} `json:"info"`
	Label      string          `json:"label"`
	Link       json.RawMessage `json:"link,omitempty"`
	LSN        *StartStop      `json:"lsn,omitempty"`
	Prior      *string         `json:"prior"`
	Reference  []string        `json:"reference"`
	Tablespace json.RawMessage `json:"tablespace,omitempty"`
	Timestamp  struct {
		Start int64 `json:"start"`
		Stop  int64 `json:"stop"`
	} `json:"timestamp"`
	Type repo.BackupType `json:"type"`

	set *setInfo // of the one that was asked for by its label
}

// InfoRepo is the state of a stanza in a repository.
type InfoRepo struct {
	Cipher string     `json:"cipher"`
	Key    int        `json:"key"`
	Status RepoStatus `json:"status"`
}

// RepoStatus is a code and what it means.
type RepoStatus struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// InfoStatus is the state of a stanza.
type InfoStatus struct {
	Code int `json:"code"`
	Lock struct {
		Backup struct {
			Held bool `json:"held"`
		} `json:"backup"`
	} `json:"lock"`
	Message string `json:"message"`
}

var (
	statusOK            = RepoStatus{0, "ok"}
	statusMissingStanza = RepoStatus{1, "missing stanza path"}
	statusNoBackup      = RepoStatus{2, "no valid backups"}
	statusMissingData   = RepoStatus{3, "missing stanza data"}
	statusNoSet         = RepoStatus{6, "requested backup not found"}
)

// InfoOptions say what to tell of.
type InfoOptions struct {
	Storage       blob.Storage
	Stanza        string // "" for all
	Set           string // a label: that backup alone, and more of it
	BackupRunning bool   // what the caller knows: shown as "backup/expire running"
}

// GetInfo collects the information. A stanza that is not there, or damaged, is
// told as its status, not as an error.
func GetInfo(ctx context.Context, o InfoOptions) (Info, error) {
	names := []string{o.Stanza}
	if o.Stanza == "" {
		var err error
		if names, err = stanzas(ctx, o.Storage); err != nil {
			return nil, fmt.Errorf("get info: %w", err)
		}
	}
	out := Info{}
	for _, n := range names {
		if err := repo.CheckStanza(n); err != nil {
			return nil, err
		}
		s, err := stanzaInfo(ctx, o.Storage, n)
		if err == nil && o.Set != "" {
			err = s.only(ctx, o.Storage, o.Set)
		}
		if err != nil {
			return nil, fmt.Errorf("get info of stanza %s: %w", n, err)
		}
		s.Status.Lock.Backup.Held = o.BackupRunning
		out = append(out, s)
	}
	return out, nil
}

// Unread is why the repository, or a part of it, could not be read: what the info
// says of it then is nothing. nil when all was read, be it empty.
func (i Info) Unread() error {
	for _, s := range i {
		if s.Status.Code == codeUnread {
			return errors.New(strings.Trim(s.Status.Message, "[]"))
		}
	}
	return nil
}

// codeUnread is pgBackRest's code of a stanza that could not be read.
const codeUnread = 99

func stanzas(ctx context.Context, s blob.Storage) ([]string, error) {
	var out []string
	for _, dir := range []string{"archive", "backup"} {
		es, err := s.List(ctx, dir, false)
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			if e.Dir && !slices.Contains(out, e.Name) {
				out = append(out, e.Name)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

func (s *StanzaInfo) set(st RepoStatus) {
	s.Repo[0].Status = st
	s.Status.Code, s.Status.Message = st.Code, st.Message
}

func stanzaInfo(ctx context.Context, st blob.Storage, stanza string) (StanzaInfo, error) {
	s := StanzaInfo{Name: stanza, Cipher: "none", Archive: []ArchiveRange{}, Backup: []BackupInfo{}, DB: []InfoDB{},
		Repo: []InfoRepo{{Cipher: "none", Key: 1}}}
	s.set(statusOK)
	info, err := repo.LoadBackupInfo(ctx, st, stanza)
	if isNotExist(err) {
		es, err := st.List(ctx, repo.BackupPath(stanza), false)
		if err != nil {
			return s, err
		}
		s.set(statusMissingData)
		if len(es) == 0 {
			s.set(statusMissingStanza)
		}
		return s, nil
	}
	if err != nil {
		if ctx.Err() != nil {
			return s, err
		}
		s.set(RepoStatus{codeUnread, "[" + strings.ReplaceAll(err.Error(), "\n", " ") + "]"})
		return s, nil
	}
	for _, h := range info.History {
		d := InfoDB{ID: h.ID, RepoKey: 1, SystemID: h.SystemID, Version: h.Version}
		s.DB = append(s.DB, d)
		if h.ID == info.Current {
			s.current = d
		}
		r, found, err := archiveRange(ctx, st, stanza, h)
		if err != nil {
			return s, err
		}
		if found || h.ID == info.Current {
			s.Archive = append(s.Archive, r)
		}
	}
	for i := range info.Backups {
		s.Backup = append(s.Backup, backupInfo(&info.Backups[i]))
	}
	if len(s.Backup) == 0 {
		s.set(statusNoBackup)
	}
	return s, nil
}

func archiveRange(ctx context.Context, st blob.Storage, stanza string, db repo.DB) (ArchiveRange, bool, error) {
	r := ArchiveRange{Database: InfoDBRef{db.ID, 1}, ID: db.ArchiveID()}
	dirs, err := st.List(ctx, repo.ArchivePath(stanza, r.ID), false)
	if err != nil {
		return r, false, err
	}
	dirs = slices.DeleteFunc(dirs, func(e blob.Info) bool { return !e.Dir || !repo.IsWALDir(e.Name) })
	// The first directory with a segment has the first one, the last with one the last.
	find := func(dirs []blob.Info, last bool) (*string, error) {
		for _, d := range dirs {
			es, err := st.List(ctx, repo.ArchivePath(stanza, r.ID, d.Name), false)
			if err != nil {
				return nil, err
			}
			if last {
				slices.Reverse(es)
			}
			for _, e := range es {
				if w, ok := repo.ParseStoredWAL(e.Name); ok && repo.KindOfWAL(w.Name) == repo.WALSegment {
					return &w.Name, nil
				}
			}
		}
		return nil, nil
	}
	if r.Min, err = find(dirs, false); err != nil {
		return r, false, err
	}
	slices.Reverse(dirs)
	r.Max, err = find(dirs, true)
	return r, r.Min != nil, err
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func backupInfo(e *repo.BackupEntry) BackupInfo {
	b := BackupInfo{Annotation: e.Annotations, Archive: StartStop{optional(e.ArchiveStart), optional(e.ArchiveStop)},
		Database: InfoDBRef{e.DBID, 1}, Error: e.Error, Label: e.Label, Prior: optional(e.Prior), Reference: e.Reference, Type: e.Type}
	b.Backrest.Format, b.Backrest.Version = e.Format, e.BackrestVersion
	b.Info.Delta, b.Info.Size = e.SizeDelta, e.Size
	b.Info.Repository.Delta, b.Info.Repository.DeltaMap = e.RepoSizeDelta, e.RepoSizeMapDelta
	if e.RepoSizeMap == nil {
		size := e.RepoSize
		b.Info.Repository.Size = &size
	} else {
		b.Info.Repository.SizeMap = e.RepoSizeMap
	}
	if e.LSNStart != "" {
		b.LSN = &StartStop{optional(e.LSNStart), optional(e.LSNStop)}
	}
	b.Timestamp.Start, b.Timestamp.Stop = e.TimeStart, e.TimeStop
	return b
}

// JSON is the text of --output=json.
func (i Info) JSON() ([]byte, error) { return json.Marshal(i) }

// Text is what info prints without --output, times in the given location.
func (i Info) Text(loc *time.Location) string {
	if len(i) == 0 {
		return "No stanzas exist in the repository.\n"
	}
	var b strings.Builder
	for n := range i {
		if n > 0 {
			b.WriteByte('\n')
		}
		i[n].text(&b, loc)
	}
	return b.String()
}

func (s *StanzaInfo) text(b *strings.Builder, loc *time.Location) {
	running := s.Status.Lock.Backup.Held
	status := "ok"
	switch {
	case s.Status.Code == 99:
		status = "error (other)"
	case s.Status.Code != 0 && running:
		status = "error (" + s.Status.Message + ", backup/expire running)"
	case s.Status.Code != 0:
		status = "error (" + s.Status.Message + ")"
	case running:
		status = "ok (backup/expire running)"
	}
	fmt.Fprintf(b, "stanza: %s\n    status: %s\n", s.Name, status)
	if s.Status.Code == codeUnread {
		fmt.Fprintf(b, "            %s\n", s.Status.Message)
	}
	if s.Status.Code != statusMissingStanza.Code {
		fmt.Fprintf(b, "    cipher: %s\n", s.Cipher)
	}
	var last strings.Builder
	for _, db := range s.DB {
		cur := db.ID == s.current.ID
		arch := slices.IndexFunc(s.Archive, func(a ArchiveRange) bool { return a.Database.ID == db.ID })
		bs := slices.DeleteFunc(slices.Clone(s.Backup), func(x BackupInfo) bool { return x.Database.ID != db.ID })
		w, head := b, "\n    db (prior)"
		if cur {
			w, head = &last, "\n    db (current)"
		} else if (arch < 0 || s.Archive[arch].Min == nil) && len(bs) == 0 {
			continue
		}
		w.WriteString(head)
		fmt.Fprintf(w, "\n        wal archive min/max (%s): ", db.Version)
		if arch >= 0 && s.Archive[arch].Min != nil {
			fmt.Fprintf(w, "%s/%s\n", *s.Archive[arch].Min, *s.Archive[arch].Max)
		} else {
			w.WriteString("none present\n")
		}
		for i := range bs {
			bs[i].text(w, loc)
		}
	}
	b.WriteString(last.String())
}

func (x *BackupInfo) text(b *strings.Builder, loc *time.Location) {
	fmt.Fprintf(b, "\n        %s backup: %s\n", x.Type, x.Label)
	fmt.Fprintf(b, "            timestamp start/stop: %s / %s\n", textTime(x.Timestamp.Start, loc), textTime(x.Timestamp.Stop, loc))
	if x.Archive.Start != nil && x.Archive.Stop != nil {
		fmt.Fprintf(b, "            wal start/stop: %s / %s\n", *x.Archive.Start, *x.Archive.Stop)
	} else {
		b.WriteString("            wal start/stop: n/a\n")
	}
	if x.set != nil && x.LSN != nil {
		fmt.Fprintf(b, "            lsn start/stop: %s / %s\n", *x.LSN.Start, *x.LSN.Stop)
	}
	fmt.Fprintf(b, "            database size: %s, database backup size: %s\n", sizeText(x.Info.Size), sizeText(x.Info.Delta))
	b.WriteString("            repo1: ")
	if x.Info.Repository.Size != nil {
		fmt.Fprintf(b, "backup set size: %s, ", sizeText(*x.Info.Repository.Size))
	}
	fmt.Fprintf(b, "backup size: %s\n", sizeText(x.Info.Repository.Delta))
	if len(x.Reference) > 0 {
		fmt.Fprintf(b, "            backup reference list: %s\n", strings.Join(x.Reference, ", "))
	}
	if x.set != nil {
		x.set.text(b)
	}
	if x.Error != nil && *x.Error {
		if len(x.ErrorList) > 0 {
			fmt.Fprintf(b, "            error list: %s\n", strings.Join(x.ErrorList, ", "))
		} else {
			b.WriteString("            error(s) detected during backup\n")
		}
	}
	if x.set != nil && len(x.Annotation) > 0 {
		b.WriteString("            annotation(s)\n")
		for _, k := range slices.Sorted(maps.Keys(x.Annotation)) {
			fmt.Fprintf(b, "                %s: %s\n", k, x.Annotation[k])
		}
	}
}

// textTime is a local time, without its offset as of 2.45.
func textTime(t int64, loc *time.Location) string {
	return time.Unix(t, 0).In(loc).Format("2006-01-02 15:04:05")
}

// sizeText is a size as pgBackRest writes it: one decimal, which is rounded,
// unless the cut one is 0.
func sizeText(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + "B"
	}
	unit, name := int64(1<<10), "KB"
	switch {
	case n >= 1<<30:
		unit, name = 1<<30, "GB"
	case n >= 1<<20:
		unit, name = 1<<20, "MB"
	}
	if int64(float64(n)/(float64(unit)/10))%10 == 0 {
		return strconv.FormatInt(n/unit, 10) + name
	}
	return fmt.Sprintf("%.1f%s", float64(n)/float64(unit), name)
}

// Last is the newest backup, nil when there is none.
func (s *StanzaInfo) Last() *BackupInfo {
	if len(s.Backup) == 0 {
		return nil
	}
	return &s.Backup[len(s.Backup)-1]
}

// RestorableFrom is the earliest time that the cluster in use can be restored
// to: the end of its oldest backup. Zero when there is none.
func (s *StanzaInfo) RestorableFrom() time.Time {
	for i := range s.Backup {
		if b := &s.Backup[i]; b.Database.ID == s.current.ID && b.Archive.Stop != nil {
			return time.Unix(b.Timestamp.Stop, 0)
		}
	}
	return time.Time{}
}

// ArchiveMinMax is the first and last WAL segment of the cluster in use, "" when
// there is none.
func (s *StanzaInfo) ArchiveMinMax() (first, last string) {
	for _, a := range s.Archive {
		if a.Database.ID == s.current.ID && a.Min != nil {
			return *a.Min, *a.Max
		}
	}
	return "", ""
}

// Only leaves the backups of one type.
func (i Info) Only(kind string) {
	for n := range i {
		i[n].Backup = slices.DeleteFunc(i[n].Backup, func(b BackupInfo) bool { return string(b.Type) != kind })
	}
}

// SizeText is a size as info writes it.
func SizeText(n int64) string { return sizeText(n) }
