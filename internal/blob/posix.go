package blob

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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
func (p *Posix) Put(ctx context.Context, name string, r io.Reader, o PutOptions) (err error) {
	if err := CheckName(name); err != nil {
		return err
	}
	dst := p.path(name)
	if err := mkdirAll(filepath.Dir(dst)); err != nil {
		return err
	}
	var b [4]byte
	rand.Read(b[:])
	tmp := dst + "." + hex.EncodeToString(b[:]) + tempMark
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(tmp)
		}
	}()
	buf := bufPool.Get().(*[]byte)
	defer bufPool.Put(buf)
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, ctxReader{ctx, r}, *buf); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	// Whatever the umask: the group reads the repository.
	if err := f.Chmod(fileMode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return place(tmp, dst, o.NoOverwrite)
}

var bufPool = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// place gives the finished temporary file its name and makes that durable.
func place(tmp, dst string, noOverwrite bool) error {
	if !noOverwrite {
		if err := os.Rename(tmp, dst); err != nil {
			return err
		}
		return syncDir(filepath.Dir(dst))
	}
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dst, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system without that flag: a hard link fails as atomically.
		if err = os.Link(tmp, dst); err == nil {
			err = os.Remove(tmp)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "put", Path: dst, Err: err}
	}
	return syncDir(filepath.Dir(dst))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// mkdirAll creates missing directories and makes each durable in its parent.
func mkdirAll(dir string) error {
	if st, err := os.Stat(dir); err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if err := mkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

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
		if strings.HasSuffix(e.Name(), tempMark) || e.Type()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
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
	dst := p.path(name)
	if err := os.Remove(dst); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		return err
	}
	return syncDir(filepath.Dir(dst))
}

// DeleteAll implements Storage.
func (p *Posix) DeleteAll(_ context.Context, dir string) error {
	if err := CheckName(dir); err != nil {
		return err
	}
	dst := p.path(dir)
	if _, err := os.Lstat(dst); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err := os.RemoveAll(dst); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dst))
}

// Link implements Storage.
func (p *Posix) Link(_ context.Context, name, target string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := checkElement(target); err != nil {
		return err
	}
	dst := p.path(name)
	tmp := dst + tempMark
	os.Remove(tmp)
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dst); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(dst))
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
