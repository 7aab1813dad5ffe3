package backup

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"manada/internal/blob"
	"manada/internal/repo"
)

// VerifyOptions say what to look at.
type VerifyOptions struct {
	Storage  blob.Storage
	Stanza   string
	Set      string // one backup, with those that it refers to and the WAL that makes it consistent; "" for all of the stanza
	Workers  int    // 0 means 2
	Progress func(Progress)
}

// Problem is something in the repository that is not as it should be.
type Problem struct {
	Label string // the backup, "" for WAL
	File  string // name in the manifest, or of the stored WAL
	Text  string
}

func (p Problem) String() string {
	if p.Label == "" {
		return p.File + ": " + p.Text
	}
	return p.Label + ", " + p.File + ": " + p.Text
}

// VerifyResult is what a verification found.
type VerifyResult struct {
	Backups  int
	Files    int // stored files that were read
	WAL      int // segments that were read
	Problems []Problem
}

// verifier collects the findings of its workers.
type verifier struct {
	VerifyOptions
	mu    sync.Mutex
	res   VerifyResult
	track *tracker
}

// Verify reads everything that a restore would read and compares checksums. The
// error is of the verification itself; what it found is in the result.
func Verify(ctx context.Context, o VerifyOptions) (*VerifyResult, error) {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	v := &verifier{VerifyOptions: o, track: &tracker{report: o.Progress}}
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verify stanza %s: %w", o.Stanza, err)
	}
	v.track.phase(PhaseDone)
	slices.SortFunc(v.res.Problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Label, b.Label), strings.Compare(a.File, b.File))
	})
	return &v.res, nil
}

func (v *verifier) problem(label, file, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.res.Problems = append(v.res.Problems, Problem{label, file, fmt.Sprintf(format, args...)})
}

func (v *verifier) run(ctx context.Context) error {
	info, arch, err := loadStanza(ctx, v.Storage, v.Stanza)
	if err != nil {
		return err
	}
	if v.Set != "" && info.Find(v.Set) == nil {
		return fail(CodeBackupSet, "Run info to see which there are.", "backup set %s does not exist", v.Set)
	}
	v.track.phase(PhaseCopy)
	seen := map[string]bool{} // stored files, as several backups may refer to one
	for i := range info.Backups {
		e := &info.Backups[i]
		if v.Set != "" && e.Label != v.Set {
			continue
		}
		if err := v.backup(ctx, e, seen); err != nil {
			return err
		}
		v.res.Backups++
	}
	for _, db := range arch.History {
		if err := v.wal(ctx, info, db); err != nil {
			return err
		}
	}
	return nil
}

type stored struct {
	file   *repo.File
	name   string
	offset int64
}

func (v *verifier) backup(ctx context.Context, e *repo.BackupEntry, seen map[string]bool) error {
	m, err := repo.LoadManifest(ctx, v.Storage, v.Stanza, e.Label)
	if err == nil {
		err = m.Restorable()
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		v.problem(e.Label, repo.ManifestFile, "%v", err)
		return nil
	}
	var todo []stored
	for i := range m.Files {
		f := &m.Files[i]
		if f.Size == 0 {
			continue
		}
		label := f.Reference
		if label == "" {
			label = m.Label
		}
		s := stored{file: f, name: repo.FilePath(v.Stanza, label, f.Name, m.Option.Compress)}
		if f.BundleID != 0 {
			s.name, s.offset = repo.BundlePath(v.Stanza, label, f.BundleID), f.BundleOffset
		}
		key := fmt.Sprintf("%s@%d %s", s.name, s.offset, f.Hash())
		if !seen[key] {
			seen[key] = true
			todo = append(todo, s)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.Workers)
	for _, s := range todo {
		g.Go(func() error {
			got, size, err := hashStored(ctx, v.Storage, s.name, s.offset, s.file.SizeRepo, m.Option.Compress, m.BundleRaw)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				v.problem(e.Label, s.file.Name, "%v", err)
			case got != s.file.Hash() || size != s.file.Size:
				v.problem(e.Label, s.file.Name, "checksum %s instead of %s", got, s.file.Hash())
			}
			v.track.update(func(p *Progress) { p.FilesDone++; p.BytesDone += s.file.Size; p.File = s.file.Name; v.res.Files++ })
			return nil
		})
	}
	return g.Wait()
}

func hashStored(ctx context.Context, s blob.Storage, name string, offset, length int64, c repo.Compression, raw bool) (string, int64, error) {
	r, err := s.Open(ctx, name, offset, length)
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	z, err := repo.NewDecompressor(c, r, raw)
	if err != nil {
		return "", 0, err
	}
	defer z.Close()
	h := sha1.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{z}, make([]byte, 256<<10))
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// wal reads the archive of one cluster, and misses what backups need of it.
func (v *verifier) wal(ctx context.Context, info *repo.BackupInfo, db repo.DB) error {
	es, err := v.Storage.List(ctx, repo.ArchivePath(v.Stanza, db.ArchiveID()), true)
	if err != nil {
		return err
	}
	need := v.needed(ctx, info, db, es)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.Workers)
	for _, e := range es {
		dir, file, ok := cutLast(e.Name)
		w, isWAL := repo.ParseStoredWAL(file)
		if !ok || !isWAL || v.Set != "" && !need[w.Name] {
			continue
		}
		delete(need, w.Name)
		g.Go(func() error {
			got, _, err := hashStored(ctx, v.Storage, repo.ArchivePath(v.Stanza, db.ArchiveID(), dir, file), 0, -1, w.Compress, false)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				v.problem("", file, "%v", err)
			case got != w.SHA1:
				v.problem("", file, "checksum %s", got)
			}
			v.track.update(func(p *Progress) { p.File = file; v.res.WAL++ })
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for n := range need {
		v.problem("", n, "a backup needs it, and it is not in the archive")
	}
	return nil
}

// needed are the segments without which the backups are not consistent.
func (v *verifier) needed(ctx context.Context, info *repo.BackupInfo, db repo.DB, archived []blob.Info) map[string]bool {
	size := uint64(0) // of segments; unknown where none can be read, and that is told
	for _, e := range archived {
		if _, file, _ := cutLast(e.Name); size == 0 && len(file) >= 24 && repo.KindOfWAL(file[:24]) == repo.WALSegment {
			size, _ = segmentSize(ctx, v.Storage, v.Stanza, e.Name, db)
		}
	}
	need := map[string]bool{}
	for i := range info.Backups {
		e := &info.Backups[i]
		if e.DBID != db.ID || e.ArchiveStart == "" || v.Set != "" && e.Label != v.Set {
			continue
		}
		need[e.ArchiveStart], need[e.ArchiveStop] = true, true
		between, _ := repo.Segments(e.ArchiveStart, e.ArchiveStop, size)
		for _, n := range between {
			need[n] = true
		}
	}
	return need
}

func cutLast(s string) (dir, file string, ok bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return s[:i], s[i+1:], true
		}
	}
	return "", s, false
}
