package keeper

import (
	"context"
	"fmt"
	"strings"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/repo"
)

// asideDir is where SetAside puts files, in the repository. pgBackRest does not
// look there.
const asideDir = "manada/set-aside"

// Aside is a file of the archive that was set aside.
type Aside struct {
	File   string    `json:"file"`   // where it is now, in the repository
	Stored time.Time `json:"stored"` // when it came into the archive
	Size   int64     `json:"size"`   // bytes
}

// SetAside takes a WAL segment or another file of WAL, by its name in pg_wal,
// out of the archive, so that whoever has the true one can archive it. It is
// kept beside the archive.
func (k *Keeper) SetAside(ctx context.Context, stanza, name string) ([]Aside, error) {
	if err := k.ours(stanza); err != nil {
		return nil, err
	}
	if repo.KindOfWAL(name) == repo.WALNone {
		return nil, &backup.Error{Code: backup.CodeOption, Text: fmt.Sprintf("%q is not the name of a file of WAL", name),
			Hint: "The condition in manada status names it, as in 0000000100000000000000A7."}
	}
	info, err := repo.LoadArchiveInfo(ctx, k.cfg.Storage, stanza)
	if err != nil {
		return nil, err
	}
	db, err := info.DB()
	if err != nil {
		return nil, err
	}
	place := strings.TrimSuffix(db.ArchiveID()+"/"+repo.WALDir(name), "/")
	es, err := k.cfg.Storage.List(ctx, repo.ArchivePath(stanza, place), false)
	if err != nil {
		return nil, err
	}
	var out []Aside
	for _, e := range es {
		if w, ok := repo.ParseStoredWAL(e.Name); e.Dir || e.Name != name && (!ok || w.Name != name) {
			continue
		}
		a := Aside{File: fmt.Sprintf("%s/%s/%s", asideDir, db.ArchiveID(), e.Name), Stored: e.ModTime.UTC(), Size: e.Size}
		if err := k.move(ctx, repo.ArchivePath(stanza, place, e.Name), a.File); err != nil {
			return out, err
		}
		k.cfg.Log.Warn("set a file of the archive aside", "file", e.Name, "now", a.File)
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, &backup.Error{Code: backup.CodeFileMissing, Text: name + " is not in the archive"}
	}
	return out, k.forgetWAL(ctx, db.ArchiveID(), name)
}

func (k *Keeper) move(ctx context.Context, from, to string) error {
	r, err := k.cfg.Storage.Open(ctx, from, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := k.cfg.Storage.Put(ctx, to, r, blob.PutOptions{}); err != nil {
		return err
	}
	return k.cfg.Storage.Delete(ctx, from)
}

// forgetWAL: that the newest segment is not there any more is no loss then.
func (k *Keeper) forgetWAL(ctx context.Context, id, name string) error {
	newest, _, err := k.wal(ctx, id, "")
	if err != nil {
		return err
	}
	return k.memory.update(func(m *Memory) bool {
		was := m.WAL[id]
		if was == name {
			m.WAL[id] = newest
		}
		return was == name
	})
}
