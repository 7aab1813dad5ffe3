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
	"time"

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
	return share(ctx, r.plan(), r.Workers, func() (func(context.Context, rejob) error, error) {
		return (&reworker{restore: r, buf: make([]byte, 256<<10), h: sha1.New()}).do, nil
	})
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
		if body == nil || f.BundleOffset < at || f.BundleOffset-at > skipGap {
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
	if !w.Delta || f.Name == controlName {
		return false
	}
	have, st, err := w.tree.edit(f.Name)
	if err != nil {
		return false
	}
	defer have.Close()
	if st.Size() < f.Size {
		return false
	}
	mtime := time.Unix(f.Timestamp, 0)
	if w.Force {
		if st.Size() != f.Size || !st.ModTime().Equal(mtime) || f.Timestamp >= w.m.CopyStart {
			return false
		}
	} else {
		if st.Size() > f.Size && have.Truncate(f.Size) != nil {
			return false // grown since: the beginning may be the same
		}
		sum, err := w.hashFile(have)
		if err != nil || sum != f.Hash() {
			return false
		}
	}
	return w.attributes(f.Name, f) == nil
}

// attributes gives a file its mode, owner and time.
func (w *reworker) attributes(name string, f *repo.File) error {
	if err := w.tree.chmod(name, f.Mode); err != nil {
		return err
	}
	if err := w.owners.apply(w.tree, name, f.User, f.Group); err != nil {
		return err
	}
	return w.tree.chtimes(name, time.Unix(f.Timestamp, 0))
}

func (w *reworker) hashFile(f io.Reader) (string, error) {
	w.h.Reset()
	if _, err := io.CopyBuffer(struct{ io.Writer }{w.h}, struct{ io.Reader }{f}, w.buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(w.h.Sum(nil)), nil
}

// writeFile writes one file from its stored bytes and checks it. pg_control goes
// under another name until all is done.
func (w *reworker) writeFile(f *repo.File, stored io.Reader) error {
	name := f.Name
	if name == controlName {
		name += controlTemp
	}
	err := w.write(name, f, stored)
	if err == nil {
		err = w.attributes(name, f)
	}
	if err != nil {
		_ = w.tree.remove(name) // what cannot be removed is incomplete without pg_control, too
		return fmt.Errorf("restore %s: %w", f.Name, err)
	}
	w.track.update(func(p *Progress) { p.FilesDone++; p.File = f.Name; w.wrote += f.Size })
	return nil
}

const controlTemp = ".pgbackrest.tmp" // as pgBackRest names it

func (w *reworker) write(name string, f *repo.File, stored io.Reader) (err error) {
	out, err := w.tree.create(name)
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
	if !r.tree.exists(controlName + controlTemp) {
		return fail(CodeFileMissing, "", "backup %s has no pg_control", r.m.Label)
	}
	if r.m.Option.Online {
		if err := r.invalidate(controlName + controlTemp); err != nil {
			return err
		}
	}
	if err := r.tree.remove(manifestName); err != nil {
		return err
	}
	for _, d := range r.roots() {
		if err := syncFS(d); err != nil {
			return fmt.Errorf("make %s durable: %w", d, err)
		}
	}
	control := filepath.Join(r.Dir, "global", "pg_control") // nothing in between is a link now but the restore's own
	return durable.Rename(control+controlTemp, control)
}

func (r *restore) invalidate(name string) error {
	b, err := r.tree.read(name)
	if err != nil {
		return err
	}
	if err := invalidateControl(b); err != nil {
		return err
	}
	f, _, err := r.tree.edit(name)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
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
	const auto = repo.TargetData + "/postgresql.auto.conf"
	old, err := r.tree.read(auto)
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
		if err := r.writeOwned(repo.TargetData+"/"+signal, ""); err != nil {
			return err
		}
	}
	return r.writeOwned(auto, text)
}

func (r *restore) writeOwned(name, text string) error {
	d := r.m.FileDefault
	mode := d.Mode
	if mode == 0 {
		mode = 0o600
	}
	if err := r.tree.write(name, []byte(text)); err != nil {
		return err
	}
	if err := r.tree.chmod(name, mode); err != nil {
		return err
	}
	return r.owners.apply(r.tree, name, d.User, d.Group)
}
