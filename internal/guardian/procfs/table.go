package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// table is an open /proc. A guardian without a postmaster reads all of it several
// times a second, so nothing here costs more than its system calls.
type table struct {
	dir *os.File
	fd  int        // of dir
	buf [4096]byte // longer than any stat or name of a program
}

func open() (*table, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	return &table{dir: d, fd: int(d.Fd())}, nil
}

func (t *table) close() { t.dir.Close() }

// list opens the table and reads which processes there are.
func list() (t *table, pids []int, err error) {
	if t, err = open(); err != nil {
		return nil, nil, err
	}
	names, err := t.dir.Readdirnames(-1)
	if err != nil {
		t.close()
		return nil, nil, fmt.Errorf("list /proc: %w", err)
	}
	pids = make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return t, pids, nil
}

func (t *table) all(pids []int) ([]Proc, error) {
	out := make([]Proc, 0, len(pids))
	for _, pid := range pids {
		switch p, err := t.read(pid); {
		case err == nil:
			out = append(out, p)
		case !errors.Is(err, os.ErrNotExist): // one that cannot be read may be anybody's
			return nil, err
		}
	}
	return out, nil
}

// standing are those that run PostgreSQL and stand in a directory. The dead do
// neither.
func (t *table) standing(pids []int, dir DirID) (out []int) {
	for _, pid := range pids {
		if exe := t.exe(pid); exe == "postgres" || exe == "postmaster" {
			if id, err := Cwd(pid); err == nil && id == dir && dir != (DirID{}) {
				out = append(out, pid)
			}
		}
	}
	return out
}

func (t *table) read(pid int) (Proc, error) {
	name := strconv.Itoa(pid) + "/stat"
	b, err := t.file(name)
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrNotExist
	}
	if err != nil {
		return Proc{}, &os.PathError{Op: "read", Path: "/proc/" + name, Err: err}
	}
	// The name, in parentheses, may hold anything; the rest follows the last one.
	b = b[bytes.LastIndexByte(b, ')')+1:]
	p, n := Proc{PID: pid}, 0
	for f := range bytes.FieldsSeq(b) {
		switch n {
		case 0:
			p.State = f[0]
		case 1:
			p.PPID, _ = strconv.Atoi(string(f))
		case 19:
			p.Start, _ = strconv.ParseUint(string(f), 10, 64)
			return p, nil
		}
		n++
	}
	return Proc{}, fmt.Errorf("read /proc/%s: %d fields", name, n)
}

// file reads a file of /proc, which is given in one piece. What it returns is
// overwritten by the next.
func (t *table) file(name string) ([]byte, error) {
	fd, err := unix.Openat(t.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.Read(fd, t.buf[:])
	unix.Close(fd)
	if err != nil {
		return nil, err
	}
	return t.buf[:n], nil
}

func (t *table) exe(pid int) string {
	n, err := unix.Readlinkat(t.fd, strconv.Itoa(pid)+"/exe", t.buf[:])
	if err != nil {
		return ""
	}
	return path.Base(strings.TrimSuffix(string(t.buf[:n]), " (deleted)"))
}
