// Package procfs reads the few facts about processes that the guardian and the
// observer of PostgreSQL rest on: who is whose child, where a process stands
// (its working directory) and what it calls itself. It deliberately changes
// nothing and keeps nothing: every call reads /proc anew, because a cached
// process table is not a proof.
//
// Start reading at Tree.
package procfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Proc is one line of the process table.
type Proc struct {
	PID, PPID int
	State     byte   // 'R', 'S', 'T' (stopped), 'Z' (zombie) ...
	Start     uint64 // clock ticks since boot; with PID it identifies a process
}

// Dead says whether nothing of the process runs any more (zombies hold no
// files, no locks and no shared memory).
func (p Proc) Dead() bool { return p.State == 'Z' || p.State == 'X' || p.State == 'x' }

// Read reads one process. The error is os.ErrNotExist when there is none.
func Read(pid int) (Proc, error) {
	t, err := open()
	if err != nil {
		return Proc{}, err
	}
	defer t.close()
	return t.read(pid)
}

// All reads the whole process table. Processes that end meanwhile are left out.
func All() ([]Proc, error) {
	t, pids, err := list()
	if err != nil {
		return nil, err
	}
	defer t.close()
	return t.all(pids)
}

// Children are the living children of a process.
func Children(pid int) ([]int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		var out []int
		for _, f := range strings.Fields(string(b)) {
			c, _ := strconv.Atoi(f)
			if p, err := Read(c); err == nil && !p.Dead() {
				out = append(out, c)
			}
		}
		return out, nil
	}
	all, err := All() // a kernel without CONFIG_PROC_CHILDREN
	if err != nil {
		return nil, err
	}
	var out []int
	for _, p := range all {
		if p.PPID == pid && !p.Dead() {
			out = append(out, p.PID)
		}
	}
	return out, nil
}

// Title is what a process calls itself: its command line, NULs as spaces.
func Title(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " ")
}

// Exe is the base name of the program that a process runs, "" when unknown.
func Exe(pid int) string {
	t, err := open()
	if err != nil {
		return ""
	}
	defer t.close()
	return t.exe(pid)
}

// DirID identifies a directory whatever it is called and whoever mounted it where.
type DirID struct{ Dev, Ino uint64 }

// Dir reads the identity of a directory.
func Dir(path string) (DirID, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return DirID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return DirID{uint64(st.Dev), st.Ino}, nil
}

// Cwd reads the identity of the directory in which a process stands.
func Cwd(pid int) (DirID, error) { return Dir(fmt.Sprintf("/proc/%d/cwd", pid)) }

// Tree lists the living processes that belong to a database directory:
// descendants of the roots (without the roots that are ours), and every
// PostgreSQL process that stands in it. PostgreSQL's children are sessions of
// their own and lose their parent with the postmaster, so neither process
// groups nor parentage alone find them; a shell in which somebody typed
// `cd $PGDATA` is none of them.
func Tree(dir DirID, self int) ([]Proc, error) {
	t, pids, err := list()
	if err != nil {
		return nil, err
	}
	defer t.close()
	all, err := t.all(pids)
	if err != nil {
		return nil, err
	}
	in := make(map[int]bool)
	for _, pid := range t.standing(pids, dir) {
		in[pid] = pid != self
	}
	for grew := true; grew; {
		grew = false
		for _, p := range all {
			if p.PID == self || p.Dead() || in[p.PID] {
				continue
			}
			if (self != 0 && p.PPID == self) || in[p.PPID] {
				in[p.PID], grew = true, true
			}
		}
	}
	var out []Proc
	for _, p := range all {
		if in[p.PID] && !p.Dead() {
			out = append(out, p)
		}
	}
	return out, nil
}

// Empty says whether Tree finds nothing for this process, for half the price: one
// that has no children has no descendants.
func Empty(dir DirID) (bool, error) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); !errors.Is(err, unix.ECHILD) {
		tree, err := Tree(dir, os.Getpid())
		return err == nil && len(tree) == 0, err
	}
	t, pids, err := list()
	if err != nil {
		return false, err
	}
	defer t.close()
	return len(t.standing(pids, dir)) == 0, nil
}
