package backup

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"manada/internal/durable"
	"manada/internal/repo"
)

// rejob is what a worker restores at once: files of one stored file, by offset.
type rejob struct {
	name  string // in the repository; "" for files that are stored nowhere
	files []*repo.File
	size  int64
}

// skipGap is up to how many unwanted bytes between two files of a bundle are
// read over rather than the bundle opened again.
const skipGap = 1 << 20

func (r *restore) plan() []rejob {
	bundles := map[string]*rejob{}
	var jobs []*rejob
	total := int64(0)
	for i := range r.m.Files {
		f := &r.m.Files[i]
		total += f.Size
		label := f.Reference
		if label == "" {
			label = r.m.Label
		}
		name := ""
		switch {
		case f.Size == 0:
		case f.BundleID != 0:
			name = repo.BundlePath(r.Stanza, label, f.BundleID)
		default:
			name = repo.FilePath(r.Stanza, label, f.Name, r.m.Option.Compress)
		}
		j := bundles[name]
		if j == nil {
			j = &rejob{name: name}
			bundles[name] = j
			jobs = append(jobs, j)
		}
		j.files = append(j.files, f)
		j.size += f.Size
	}
	sort.SliceStable(jobs, func(i, j int) bool { return jobs[i].size > jobs[j].size })
	out := make([]rejob, len(jobs))
	for i, j := range jobs {
		sort.SliceStable(j.files, func(a, b int) bool { return j.files[a].BundleOffset < j.files[b].BundleOffset })
		out[i] = *j
	}
	r.track.update(func(p *Progress) {
		p.Phase, p.BytesTotal, p.FilesTotal = PhaseCopy, total, len(r.m.Files)
	})
	return out
}

func (r *restore) copyFiles(ctx context.Context) error {
	jobs := r.plan()
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	next := 0
	for range min(r.Workers, len(jobs)) {
		g.Go(func() error {
			w := &reworker{restore: r, buf: make([]byte, 256<<10), h: sha1.New()}
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(jobs) {
					return nil
				}
				if err := w.do(ctx, jobs[i]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

type reworker struct {
	*restore
	buf []byte
	h   hash.Hash
}

func (w *reworker) do(ctx context.Context, j rejob) error {
	var body io.ReadCloser
	var at, end int64
	defer func() {
		if body != nil {
			body.Close()
		}
	}()
	for i, f := range j.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.keep(f) {
			w.track.update(func(p *Progress) { p.FilesDone++; p.BytesDone += f.Size; p.File = f.Name; w.kept++ })
			continue
		}
		if j.name == "" {
			if err := w.writeFile(f, nil); err != nil {
				return err
			}
			continue
		}
		if body == nil || f.BundleOffset-at > skipGap {
			if body != nil {
				body.Close()
			}
			last := j.files[len(j.files)-1]
			at, end = f.BundleOffset, last.BundleOffset+last.SizeRepo
			if i == len(j.files)-1 {
				end = f.BundleOffset + f.SizeRepo
			}
			var err error
			if body, err = w.Storage.Open(ctx, j.name, at, end-at); err != nil {
				return fmt.Errorf("restore %s: %w", f.Name, err)
			}
		}
		if _, err := io.CopyN(io.Discard, body, f.BundleOffset-at); err != nil {
			return fmt.Errorf("restore %s: read %s: %w", f.Name, j.name, err)
		}
		part := &io.LimitedReader{R: body, N: f.SizeRepo}
		if err := w.writeFile(f, part); err != nil {
			return err
		}
		// A decompressor may not need the last bytes of a stream.
		if _, err := io.Copy(io.Discard, part); err != nil {
			return fmt.Errorf("restore %s: read %s: %w", f.Name, j.name, err)
		}
		at = f.BundleOffset + f.SizeRepo
	}
	return nil
}

// keep says whether a delta restore finds the file as the backup has it.
func (w *reworker) keep(f *repo.File) bool {
	if !w.delta || f.Name == controlName {
		return false
	}
	path := w.path(f.Name)
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() < f.Size {
		return false
	}
	mtime := time.Unix(f.Timestamp, 0)
	if w.Force && !w.Delta {
		if st.Size() != f.Size || !st.ModTime().Equal(mtime) || f.Timestamp >= w.m.CopyStart {
			return false
		}
	} else {
		if st.Size() > f.Size && os.Truncate(path, f.Size) != nil {
			return false // grown since: the beginning may be the same
		}
		sum, err := w.hashFile(path)
		if err != nil || sum != f.Hash() {
			return false
		}
	}
	return os.Chmod(path, fs.FileMode(f.Mode)&fs.ModePerm) == nil && w.owners.apply(path, f.User, f.Group) == nil &&
		os.Chtimes(path, mtime, mtime) == nil
}

func (w *reworker) hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w.h.Reset()
	if _, err := io.CopyBuffer(struct{ io.Writer }{w.h}, struct{ io.Reader }{f}, w.buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(w.h.Sum(nil)), nil
}

// writeFile writes one file from its stored bytes and checks it. pg_control goes
// under another name until all is done.
func (w *reworker) writeFile(f *repo.File, stored io.Reader) error {
	path := w.path(f.Name)
	if f.Name == controlName {
		path += controlTemp
	}
	err := w.write(path, f, stored)
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("restore %s: %w", f.Name, err)
	}
	return nil
}

const controlTemp = ".pgbackrest.tmp" // as pgBackRest names it

func (w *reworker) write(path string, f *repo.File, stored io.Reader) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	w.h.Reset()
	if f.Size > 0 {
		z, err := repo.NewDecompressor(w.m.Option.Compress, stored, w.m.BundleRaw)
		if err != nil {
			return damaged(err)
		}
		defer z.Close()
		if err := w.pump(out, z, f); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(w.h.Sum(nil)); got != f.Hash() {
		return fail(CodeChecksum, "The repository is damaged: run verify, and restore another backup set.",
			"its content has checksum %s instead of %s", got, f.Hash())
	}
	if err := out.Chmod(fs.FileMode(f.Mode) & fs.ModePerm); err != nil {
		return err
	}
	if err := w.owners.apply(path, f.User, f.Group); err != nil {
		return err
	}
	mtime := time.Unix(f.Timestamp, 0)
	if err := os.Chtimes(path, mtime, mtime); err != nil {
		return err
	}
	w.track.update(func(p *Progress) { p.FilesDone++; p.File = f.Name; w.wrote += f.Size })
	return nil
}

func damaged(err error) error {
	return &Error{Code: CodeChecksum, Text: "the stored file is damaged", Err: err,
		Hint: "The repository is damaged: run verify, and restore another backup set."}
}

func (w *reworker) pump(out *os.File, in io.Reader, f *repo.File) error {
	var size int64
	for {
		n, err := in.Read(w.buf)
		if size += int64(n); size > f.Size {
			return damaged(fmt.Errorf("it has more than %d bytes", f.Size))
		}
		if n > 0 {
			w.h.Write(w.buf[:n])
			if _, err := out.Write(w.buf[:n]); err != nil {
				return err
			}
			w.track.update(func(p *Progress) { p.BytesDone += int64(n); p.File = f.Name })
		}
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err != nil {
			return damaged(err)
		}
	}
}

// finish makes all of it durable and only then gives pg_control its name.
func (r *restore) finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	control := filepath.Join(r.Dir, "global", "pg_control")
	if !exists(control + controlTemp) {
		return fail(CodeFileMissing, "", "backup %s has no pg_control", r.m.Label)
	}
	if r.m.Option.Online {
		if err := r.invalidate(control + controlTemp); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(r.Dir, repo.ManifestFile)); err != nil {
		return err
	}
	for _, d := range r.roots() {
		if err := syncFS(d); err != nil {
			return fmt.Errorf("make %s durable: %w", d, err)
		}
	}
	return durable.Rename(control+controlTemp, control)
}

func (r *restore) invalidate(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := invalidateControl(b); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(b)
	return err
}

// syncFS writes everything of a directory's file system to its disk, in one call
// instead of one for each of thousands of files, and reports what could not be.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// writeRecovery writes the settings for recovery into postgresql.auto.conf, and
// the signal file.
func (r *restore) writeRecovery() error {
	label := r.Now().Format("2006-01-02 15:04:05")
	path := filepath.Join(r.Dir, "postgresql.auto.conf")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := retireTargets(string(old), label)
	if r.Type != RestoreNone {
		if text = strings.TrimSpace(text); text != "" {
			text += "\n\n"
		}
		text += r.recoveryText(label)
		signal := "recovery.signal"
		if r.Type == RestoreStandby {
			signal = "standby.signal"
		}
		if err := r.writeOwned(filepath.Join(r.Dir, signal), ""); err != nil {
			return err
		}
	}
	return r.writeOwned(path, text)
}

func (r *restore) writeOwned(path, text string) error {
	d := r.m.FileDefault
	mode := fs.FileMode(d.Mode) & fs.ModePerm
	if mode == 0 {
		mode = 0o600
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return r.owners.apply(path, d.User, d.Group)
}
