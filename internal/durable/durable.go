package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// TempMark ends the names of unfinished files; pgBackRest's own mark, so that
// both programs skip each other's in a repository.
const TempMark = ".pgbackrest.tmp"

// Options of a file that is written.
type Options struct {
	Mode  fs.FileMode // 0: 0600; whatever the umask
	Owner *Owner      // nil: the process's
}

// Owner of a file.
type Owner struct{ UID, GID int }

// OwnerOf is the owner of a file or folder, for Options: what root writes for a
// process that does not run as root is given to it. Nil for anybody but root.
func OwnerOf(path string) (*Owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return &Owner{int(st.Uid), int(st.Gid)}, nil
}

// Write replaces the file.
func Write(path string, content []byte, o Options) error {
	f, err := written(path, content, o)
	if err != nil {
		return err
	}
	return f.Commit()
}

// WriteNew makes a file that must not exist: fs.ErrExist.
func WriteNew(path string, content []byte, o Options) error {
	f, err := written(path, content, o)
	if err != nil {
		return err
	}
	return f.CommitNew()
}

func written(path string, content []byte, o Options) (*File, error) {
	f, err := Create(path, o)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		f.Abort()
		return nil, err
	}
	return f, nil
}

// Copy copies a file.
func Copy(from, to string, o Options) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := Create(to, o)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.Copy(f, in); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	return f.Commit()
}

// File is a file that does not have its name yet. It gets it by Commit or
// CommitNew; Abort, harmless after them, removes it.
type File struct {
	f    *os.File
	dst  string
	done bool
}

// Create begins a file.
func Create(path string, o Options) (*File, error) {
	f, err := os.OpenFile(tempName(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	told(Op{Kind: OpCreate, Path: f.Name()})
	d := &File{f: f, dst: path}
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	err = f.Chmod(o.Mode)
	if err == nil && o.Owner != nil {
		err = f.Chown(o.Owner.UID, o.Owner.GID)
	}
	if err != nil {
		d.Abort()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return d, nil
}

// tempName is beside the file: a rename does not cross file systems.
func tempName(path string) string {
	var b [4]byte
	rand.Read(b[:])
	end := "." + hex.EncodeToString(b[:]) + TempMark
	dir, base := filepath.Split(path)
	return dir + base[:min(len(base), unix.NAME_MAX-len(end))] + end
}

// Write implements io.Writer.
func (d *File) Write(p []byte) (int, error) {
	n, err := d.f.Write(p)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", d.dst, err)
	}
	told(Op{Kind: OpWrite, Path: d.f.Name(), Data: p})
	return n, nil
}

// Commit gives the file its name, in place of what bears it.
func (d *File) Commit() error {
	return d.commit(func(tmp string) error { return rename(tmp, d.dst) })
}

// CommitNew gives the file its name, fs.ErrExist where something bears it.
func (d *File) CommitNew() error {
	return d.commit(func(tmp string) error { return renameNew(tmp, d.dst) })
}

func (d *File) commit(name func(tmp string) error) error {
	defer d.Abort()
	err := d.f.Sync()
	if err == nil {
		told(Op{Kind: OpSync, Path: d.f.Name()})
		err = d.f.Close()
	}
	if err == nil {
		err = name(d.f.Name())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.dst, err)
	}
	d.done = true
	return SyncDir(filepath.Dir(d.dst))
}

// Abort removes a file that has not got its name.
func (d *File) Abort() {
	if d.done {
		return
	}
	d.done = true
	d.f.Close()
	if os.Remove(d.f.Name()) == nil {
		told(Op{Kind: OpRemove, Path: d.f.Name()})
	}
}

func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	told(Op{Kind: OpRename, Path: from, To: to})
	return nil
}

func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system without that flag: a hard link fails as atomically.
		if err = os.Link(from, to); err == nil {
			err = os.Remove(from)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: to, Err: err}
	}
	told(Op{Kind: OpRename, Path: from, To: to})
	return nil
}

// Rename gives a file or folder another name, in place of a file or an empty
// folder that bears it. What is in a folder is not written to the disk by it.
func Rename(from, to string) error {
	if err := rename(from, to); err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		if err := SyncDir(filepath.Dir(from)); err != nil {
			return err
		}
	}
	return SyncDir(filepath.Dir(to))
}

// RenameNew is Rename where nothing may bear the name: fs.ErrExist.
func RenameNew(from, to string) error {
	if err := renameNew(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// Place is Rename of a file that somebody else has written: it is written to
// the disk first.
func Place(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err != nil {
		return err
	}
	told(Op{Kind: OpSync, Path: from})
	return Rename(from, to)
}

// Symlink makes a link, in place of what bears its name.
func Symlink(target, path string) error {
	tmp := tempName(path)
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	told(Op{Kind: OpSymlink, Path: tmp, To: target})
	if err := Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// Remove removes a file, a link or an empty folder; a missing one is fine.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	told(Op{Kind: OpRemove, Path: path})
	return SyncDir(filepath.Dir(path))
}

// RemoveAll removes a folder with what is in it; a missing one is fine.
func RemoveAll(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	told(Op{Kind: OpRemove, Path: path})
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes a folder and the missing ones above it.
func MkdirAll(dir string, mode fs.FileMode) error {
	if st, err := os.Stat(dir); err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if err := MkdirAll(parent, mode); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); errors.Is(err, fs.ErrExist) {
		return SyncDir(parent)
	} else if err != nil {
		return err
	}
	told(Op{Kind: OpMkdir, Path: dir})
	return SyncDir(parent)
}

// SyncDir writes a folder's names to the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write folder to disk: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write folder %s to disk: %w", dir, err)
	}
	told(Op{Kind: OpSyncDir, Path: dir})
	return nil
}

// sweepAge is how long nobody writes to an unfinished file before it counts as
// left over by a crash.
const sweepAge = time.Hour

// Sweep removes what crashes have left unfinished in a folder and below it.
func Sweep(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || e.IsDir() || !strings.HasSuffix(e.Name(), TempMark) {
			return err
		}
		st, err := e.Info()
		if err != nil || time.Since(st.ModTime()) < sweepAge {
			return nil // gone, or at work
		}
		return Remove(path)
	})
}
