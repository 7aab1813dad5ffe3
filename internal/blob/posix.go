package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"manada/internal/durable"
)

const (
	dirMode  = 0o750
	fileMode = 0o640
)

// Posix keeps the files in a local directory.
type Posix struct {
	root    string
	lockDir string
}

// PosixOptions change where a Posix keeps its locks.
type PosixOptions struct {
	// LockDir holds the lock files, "" means the directory "lock" in the root.
	// Setting it to pgBackRest's lock-path keeps both programs from working on
	// one stanza at once.
	LockDir string
}

// NewPosix uses (and on the first Put creates) the directory root, an absolute path.
func NewPosix(root string, o PosixOptions) (*Posix, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("open repository %q: want an absolute path", root)
	}
	p := &Posix{root: filepath.Clean(root), lockDir: o.LockDir}
	if p.lockDir == "" {
		p.lockDir = filepath.Join(p.root, "lock")
	}
	return p, nil
}

// Root is the directory.
func (p *Posix) Root() string { return p.root }

func (p *Posix) path(name string) string { return filepath.Join(p.root, filepath.FromSlash(name)) }

type fileRange struct {
	io.Reader
	f *os.File
}

func (r fileRange) Close() error { return r.f.Close() }

// Open implements Storage.
func (p *Posix) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	f, err := os.Open(p.path(name))
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		f.Close()
		return nil, fmt.Errorf("open %s: is a directory: %w", name, ErrNotExist)
	}
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
	}
	var r io.Reader = f
	if length >= 0 {
		r = io.LimitReader(f, length)
	}
	return fileRange{ctxReader{ctx, r}, f}, nil
}

// Put implements Storage: a temporary file beside the final one, fsync, rename,
// fsync of the directory.
func (p *Posix) Put(ctx context.Context, name string, r io.Reader, o PutOptions) error {
	if err := CheckName(name); err != nil {
		return err
	}
	dst := p.path(name)
	if err := durable.MkdirAll(filepath.Dir(dst), dirMode); err != nil {
		return err
	}
	f, err := durable.Create(dst, durable.Options{Mode: fileMode}) // the group reads the repository
	if err != nil {
		return err
	}
	defer f.Abort()
	buf := bufPool.Get().(*[]byte)
	defer bufPool.Put(buf)
	if _, err := io.CopyBuffer(f, ctxReader{ctx, r}, *buf); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if o.NoOverwrite {
		return f.CommitNew()
	}
	return f.Commit()
}

var bufPool = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// Stat implements Storage.
func (p *Posix) Stat(_ context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	st, err := os.Stat(p.path(name))
	if err != nil {
		return Info{}, err
	}
	return info(name, st), nil
}

func info(name string, st fs.FileInfo) Info {
	i := Info{Name: name, Dir: st.IsDir(), ModTime: st.ModTime()}
	if !i.Dir {
		i.Size = st.Size()
	}
	return i
}

// List implements Storage. Symbolic links are not listed and not followed.
func (p *Posix) List(ctx context.Context, dir string, recursive bool) ([]Info, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	var out []Info
	if err := p.list(ctx, p.path(dir), "", recursive, &out); err != nil {
		return nil, err
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func (p *Posix) list(ctx context.Context, dir, prefix string, recursive bool, out *[]Info) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range es {
		if strings.HasSuffix(e.Name(), durable.TempMark) || e.Type()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
			continue
		}
		if recursive && e.IsDir() {
			if err := p.list(ctx, filepath.Join(dir, e.Name()), prefix+e.Name()+"/", true, out); err != nil {
				return err
			}
			continue
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return err
		}
		*out = append(*out, info(prefix+e.Name(), st))
	}
	return nil
}

// Delete implements Storage.
func (p *Posix) Delete(_ context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return durable.Remove(p.path(name))
}

// DeleteAll implements Storage.
func (p *Posix) DeleteAll(_ context.Context, dir string) error {
	if err := CheckName(dir); err != nil {
		return err
	}
	return durable.RemoveAll(p.path(dir))
}

// Link implements Storage.
func (p *Posix) Link(_ context.Context, name, target string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := checkElement(target); err != nil {
		return err
	}
	return durable.Symlink(target, p.path(name))
}

type flock struct {
	f    *os.File
	once sync.Once
}

func (l *flock) Unlock()               { l.once.Do(func() { l.f.Close() }) }
func (l *flock) Lost() <-chan struct{} { return nil }

// Lock implements Storage with flock on <lock dir>/<name>.lock. The kernel
// drops it with the process; the file stays, as removing it would race.
func (p *Posix) Lock(_ context.Context, name string) (Lock, error) {
	if err := checkElement(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.lockDir, 0o770); err != nil {
		return nil, err
	}
	path := filepath.Join(p.lockDir, name+".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// pgBackRest parses what a held lock file says.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, `{"execId":"%d-00000000","pid":%d}`, os.Getpid(), os.Getpid())
	}
	return &flock{f: f}, nil
}
