package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"manada/internal/repo"
)

// tree is what a restore writes into: the data directory, the tablespaces and
// what links lead to, each opened once. All that a restore makes, changes or
// removes goes through it, by the names of the manifest, and cannot leave these
// directories: neither a name nor a symbolic link that lies in them leads out.
type tree struct {
	spots map[string]spot // by the manifest's name
}

// spot is a place in one of the directories.
type spot struct {
	root *os.Root
	rel  string
}

func (t *tree) close() {
	for _, s := range t.spots {
		s.root.Close()
	}
}

// open adds a directory, which exists, under a manifest's name; file is set for
// one that is a file in the directory.
func (t *tree) open(name, dir, file string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	if file == "" {
		file = "."
	}
	t.spots[name] = spot{root, file}
	return nil
}

// at finds the place of a name: in the directory with the longest name above it.
func (t *tree) at(name string) (spot, error) {
	for above := name; above != "." && above != "/"; above = path.Dir(above) {
		if s, ok := t.spots[above]; ok {
			rest := strings.TrimPrefix(name[len(above):], "/")
			return spot{s.root, filepath.Join(s.rel, rest)}, nil
		}
	}
	return spot{}, fmt.Errorf("%q is in no directory of the restore", name)
}

// on does something at the place of a name.
func (t *tree) on(name string, do func(s spot) error) error {
	s, err := t.at(name)
	if err != nil {
		return err
	}
	return do(s)
}

func (t *tree) mkdir(name string) error {
	return t.on(name, func(s spot) error { return s.root.MkdirAll(s.rel, 0o700) })
}

func (t *tree) chmod(name string, mode uint32) error {
	return t.on(name, func(s spot) error { return s.root.Chmod(s.rel, fs.FileMode(mode)&fs.ModePerm) })
}

func (t *tree) chown(name string, uid, gid int) error {
	return t.on(name, func(s spot) error { return s.root.Lchown(s.rel, uid, gid) })
}

func (t *tree) chtimes(name string, at time.Time) error {
	return t.on(name, func(s spot) error { return s.root.Chtimes(s.rel, at, at) })
}

// create makes a new file in the place of whatever is there: not into it, as it
// may be a link, or have another name elsewhere.
func (t *tree) create(name string) (f *os.File, err error) {
	err = t.on(name, func(s spot) error {
		f, err = s.root.OpenFile(s.rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			if err = s.root.Remove(s.rel); err == nil {
				f, err = s.root.OpenFile(s.rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			}
		}
		return err
	})
	return f, err
}

// write makes a file of the given content.
func (t *tree) write(name string, data []byte) error {
	f, err := t.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// edit opens a file that is there for reading and writing; it is a regular file
// of one name.
func (t *tree) edit(name string) (f *os.File, st fs.FileInfo, err error) {
	s, err := t.at(name)
	if err != nil {
		return nil, nil, err
	}
	if st, err = s.root.Lstat(s.rel); err != nil {
		return nil, nil, err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.Mode().IsRegular() || ok && sys.Nlink > 1 {
		return nil, nil, fmt.Errorf("%s is no file of its own", name)
	}
	f, err = s.root.OpenFile(s.rel, os.O_RDWR, 0)
	return f, st, err
}

func (t *tree) read(name string) (b []byte, err error) {
	err = t.on(name, func(s spot) error { b, err = s.root.ReadFile(s.rel); return err })
	return b, err
}

func (t *tree) exists(name string) bool {
	return t.on(name, func(s spot) error { _, err := s.root.Lstat(s.rel); return err }) == nil
}

func (t *tree) remove(name string) error {
	return t.on(name, func(s spot) error { return s.root.Remove(s.rel) })
}

// removeAll removes what is there; of a link the link only.
func (t *tree) removeAll(name string) error {
	return t.on(name, func(s spot) error { return s.root.RemoveAll(s.rel) })
}

func (t *tree) readlink(name string) (dst string, err error) {
	err = t.on(name, func(s spot) error { dst, err = s.root.Readlink(s.rel); return err })
	return dst, err
}

// link makes a symbolic link in the place of whatever is there.
func (t *tree) link(name, dst string) error {
	if have, err := t.readlink(name); err == nil && have == dst {
		return nil
	}
	if err := t.removeAll(name); err != nil {
		return err
	}
	return t.on(name, func(s spot) error { return s.root.Symlink(dst, s.rel) })
}

// list gives what is in a directory, nothing when there is none.
func (t *tree) list(name string) (es []fs.DirEntry, err error) {
	err = t.on(name, func(s spot) error {
		d, err := s.root.Open(s.rel)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer d.Close()
		es, err = d.ReadDir(-1)
		return err
	})
	return es, err
}

// spotName is the name under which a tablespace is opened.
func spotName(oid string) string { return repo.TargetTblsp + "/" + oid }
