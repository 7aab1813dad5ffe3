package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/repo"
)

// readWithin is how long an expiry waits for new backups to be read back; what
// takes longer is expired later.
const readWithin = time.Minute

// Config says what is kept.
type Config struct {
	Node      string // of this host
	Storage   blob.Storage
	Stanza    string
	Memory    string // file
	Retention backup.Retention
	MinAge    time.Duration // before a backup takes the place of an older one
	Now       func() time.Time
	Log       *slog.Logger
}

// Keeper implements backup.Keeper on the repository host, for its own processes
// and, through Handler, for other hosts.
type Keeper struct {
	cfg    Config
	memory memory
	direct backup.Keeper

	reading sync.Mutex // one backup is read back at a time
}

// New makes a keeper.
func New(c Config) *Keeper {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{cfg: c, memory: memory{path: c.Memory}, direct: backup.NewKeeper(c.Storage, c.Log)}
}

func (k *Keeper) ours(stanza string) error {
	if stanza != k.cfg.Stanza {
		return refused("stanza %s is not the herd's, %s", stanza, k.cfg.Stanza)
	}
	return nil
}

// Create implements backup.Keeper. A stanza that was there and is gone is never
// made anew.
func (k *Keeper) Create(ctx context.Context, stanza string, c backup.Cluster) error {
	if err := k.ours(stanza); err != nil {
		return err
	}
	m, err := k.memory.load()
	if err != nil {
		return err
	}
	if m.SystemID != 0 {
		for _, name := range infoFiles(stanza) {
			gone, err := k.gone(ctx, name)
			if err != nil {
				return err
			}
			if gone && m.SystemID == c.SystemID {
				return &backup.Error{Code: backup.CodeFileMissing,
					Text: fmt.Sprintf("the repository had backups and WAL of this cluster, and %s is gone: it is not begun anew", name),
					Hint: fmt.Sprintf("Bring the repository back. If it was removed on purpose, remove %s on its host.", k.cfg.Memory)}
			}
		}
	}
	if err := k.direct.Create(ctx, stanza, c); err != nil {
		return err
	}
	return k.memory.update(func(m *Memory) bool {
		changed := m.SystemID != c.SystemID || m.Version != c.Version
		m.SystemID, m.Version = c.SystemID, c.Version
		return changed
	})
}

func infoFiles(stanza string) []string {
	return []string{repo.ArchivePath(stanza, repo.ArchiveInfoFile), repo.BackupPath(stanza, repo.BackupInfoFile)}
}

// gone says whether a file and its copy are not there.
func (k *Keeper) gone(ctx context.Context, name string) (bool, error) {
	for _, n := range []string{name, name + repo.CopySuffix} {
		_, err := k.cfg.Storage.Stat(ctx, n)
		if err == nil || !errors.Is(err, blob.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// Begin implements backup.Keeper.
func (k *Keeper) Begin(ctx context.Context, stanza string) ([]string, error) {
	if err := k.ours(stanza); err != nil {
		return nil, err
	}
	if err := k.Look(ctx); err != nil { // before what is gone is forgotten
		return nil, err
	}
	return k.direct.Begin(ctx, stanza)
}

// Finish implements backup.Keeper.
func (k *Keeper) Finish(ctx context.Context, stanza, label string) ([]string, error) {
	if err := k.ours(stanza); err != nil {
		return nil, err
	}
	if err := backup.CheckStored(ctx, k.cfg.Storage, stanza, label); err != nil {
		return nil, err
	}
	notes, err := k.direct.Finish(ctx, stanza, label)
	if err != nil {
		return notes, err
	}
	return notes, k.memory.update(func(m *Memory) bool { m.know(label, k.cfg.Now()); return true })
}

func (m *Memory) know(label string, since time.Time) bool {
	if _, ok := m.Backups[label]; ok {
		return false
	}
	m.Backups[label] = Known{Since: since.UTC()}
	return true
}

// Discard implements backup.Keeper.
func (k *Keeper) Discard(ctx context.Context, stanza, label string) error {
	if err := k.ours(stanza); err != nil {
		return err
	}
	return k.direct.Discard(ctx, stanza, label)
}

// ExpireBackups implements backup.Keeper: by the retention of this host, or the
// one that was asked for where that keeps more.
func (k *Keeper) ExpireBackups(ctx context.Context, stanza string, asked backup.Retention, held bool) (*backup.Expired, error) {
	if err := k.ours(stanza); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, readWithin)
	err := k.ReadBack(within)
	cancel()
	if err != nil && within.Err() == nil {
		return nil, err
	}
	m, err := k.memory.load()
	if err != nil {
		return nil, err
	}
	r := more(k.cfg.Retention, asked)
	r.Counts = func(e *repo.BackupEntry) bool { return k.counts(m, e) }
	out, err := k.direct.ExpireBackups(ctx, stanza, r, held)
	if err != nil {
		return nil, err
	}
	return out, k.memory.update(func(m *Memory) bool {
		for _, l := range out.Backups {
			delete(m.Backups, l)
		}
		return len(out.Backups) > 0
	})
}

// counts: a backup takes the place of older ones when it was read back without
// a fault and has been there for long enough.
func (k *Keeper) counts(m Memory, e *repo.BackupEntry) bool {
	known, ok := m.Backups[e.Label]
	return ok && known.Read != nil && known.Bad == "" && k.cfg.Now().Sub(known.Since) >= k.cfg.MinAge
}

// more is the retention that keeps whatever one of the two keeps; 0 is all.
func more(a, b backup.Retention) backup.Retention {
	most := func(x, y int) int {
		if x == 0 || y == 0 {
			return 0
		}
		return max(x, y)
	}
	if a.Archive == 0 {
		a.Archive = a.Full
	}
	if b.Archive == 0 {
		b.Archive = b.Full
	}
	return backup.Retention{Full: most(a.Full, b.Full), Diff: most(a.Diff, b.Diff), Archive: most(a.Archive, b.Archive)}
}

// Look compares the repository with what is remembered of it: it remembers what
// is new, and notes what is gone.
func (k *Keeper) Look(ctx context.Context) error {
	m, err := k.memory.load()
	if err != nil {
		return err
	}
	now, lost, err := k.seen(ctx, m)
	if err != nil {
		return err
	}
	slices.Sort(lost)
	if len(lost) > 0 && !slices.Equal(lost, m.Lost) {
		k.cfg.Log.Error("the repository has lost what it had", "lost", lost)
	}
	return k.memory.update(func(m *Memory) bool {
		changed := !slices.Equal(m.Lost, lost)
		m.Lost = lost
		if now.SystemID != 0 && m.SystemID == 0 {
			m.SystemID, m.Version, changed = now.SystemID, now.Version, true
		}
		for l, b := range now.Backups {
			changed = m.know(l, b.Since) || changed
		}
		for id, seg := range now.WAL {
			if m.WAL[id] < seg {
				m.WAL[id], changed = seg, true
			}
		}
		return changed
	})
}

// seen is what the repository holds now, and what of m it lacks. A backup that
// backup.info does not know any more was expired in order.
func (k *Keeper) seen(ctx context.Context, m Memory) (now Memory, lost []string, err error) {
	s, stanza := k.cfg.Storage, k.cfg.Stanza
	now = Memory{Backups: map[string]Known{}, WAL: map[string]string{}}
	for _, name := range infoFiles(stanza) {
		gone, err := k.gone(ctx, name)
		if err != nil {
			return now, nil, err
		}
		if gone && m.SystemID != 0 {
			lost = append(lost, name)
		}
	}
	arch, err := repo.LoadArchiveInfo(ctx, s, stanza)
	if errors.Is(err, blob.ErrNotExist) {
		return now, lost, nil
	}
	if err != nil {
		return now, nil, err
	}
	db, err := arch.DB()
	if err != nil {
		return now, nil, err
	}
	now.SystemID, now.Version = db.SystemID, db.Version
	newest, found, err := k.wal(ctx, db.ArchiveID(), m.WAL[db.ArchiveID()])
	if err != nil {
		return now, nil, err
	}
	now.WAL[db.ArchiveID()] = newest
	if !found {
		lost = append(lost, "WAL segment "+m.WAL[db.ArchiveID()])
	}
	info, err := repo.LoadBackupInfo(ctx, s, stanza)
	if errors.Is(err, blob.ErrNotExist) {
		return now, lost, nil
	}
	if err != nil {
		return now, nil, err
	}
	for i := range info.Backups {
		e := &info.Backups[i]
		now.Backups[e.Label] = Known{Since: k.since(m, e)}
		gone, err := k.gone(ctx, repo.BackupPath(stanza, e.Label, repo.ManifestFile))
		if err != nil {
			return now, nil, err
		}
		if gone {
			lost = append(lost, "backup "+e.Label)
		}
		if e.DBID != db.ID || e.ArchiveStart == "" || !e.ArchiveCheck {
			continue
		}
		for _, seg := range []string{e.ArchiveStart, e.ArchiveStop} { // without them it is not consistent
			if _, found, err = k.wal(ctx, db.ArchiveID(), seg); err != nil {
				return now, nil, err
			}
			if what := "WAL segment " + seg; !found && !slices.Contains(lost, what) {
				lost = append(lost, what)
			}
		}
	}
	// backup.info was written anew without them, by whoever makes backups here.
	for l := range m.Backups {
		if _, ok := now.Backups[l]; !ok && slices.Contains(m.Lost, "backup "+l) {
			lost = append(lost, "backup "+l)
		}
	}
	return now, lost, nil
}

// since: what is there when the memory begins was made when it says.
func (k *Keeper) since(m Memory, e *repo.BackupEntry) time.Time {
	stop := time.Unix(e.TimeStop, 0)
	if m.SystemID == 0 && stop.Before(k.cfg.Now()) {
		return stop
	}
	return k.cfg.Now()
}

// wal finds the newest segment of an archive, and whether the one is there that
// was the newest before.
func (k *Keeper) wal(ctx context.Context, id, before string) (newest string, found bool, err error) {
	dirs, err := k.cfg.Storage.List(ctx, repo.ArchivePath(k.cfg.Stanza, id), false)
	if err != nil {
		return "", false, err
	}
	found = before == ""
	for _, d := range dirs {
		if !d.Dir || !repo.IsWALDir(d.Name) || before != "" && d.Name < before[:16] {
			continue
		}
		es, err := k.cfg.Storage.List(ctx, repo.ArchivePath(k.cfg.Stanza, id, d.Name), false)
		if err != nil {
			return "", false, err
		}
		for _, e := range es {
			if w, ok := repo.ParseStoredWAL(e.Name); ok && repo.KindOfWAL(w.Name) == repo.WALSegment {
				newest, found = max(newest, w.Name), found || w.Name == before
			}
		}
	}
	return newest, found, nil
}

// ReadBack reads every backup that was not read yet, as a restore would. What it
// finds is remembered.
func (k *Keeper) ReadBack(ctx context.Context) error {
	k.reading.Lock()
	defer k.reading.Unlock()
	if err := k.Look(ctx); err != nil {
		return err
	}
	m, err := k.memory.load()
	if err != nil {
		return err
	}
	for l, known := range m.Backups {
		if known.Read != nil || slices.Contains(m.Lost, "backup "+l) {
			continue
		}
		res, err := backup.Verify(ctx, backup.VerifyOptions{Storage: k.cfg.Storage, Stanza: k.cfg.Stanza, Set: l, Workers: 1})
		if backup.Code(err) == backup.CodeBackupSet {
			continue // expired meanwhile
		}
		if err != nil {
			return err
		}
		at := k.cfg.Now().UTC()
		known.Read = &at
		if len(res.Problems) > 0 {
			known.Bad = res.Problems[0].String()
			k.cfg.Log.Error("a backup cannot be read back", "label", l, "problem", known.Bad, "problems", len(res.Problems))
		}
		err = k.memory.update(func(m *Memory) bool {
			if _, ok := m.Backups[l]; !ok {
				return false
			}
			m.Backups[l] = known
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// State is what is remembered.
func (k *Keeper) State() (Memory, error) { return k.memory.load() }
