package procfs

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A directory is empty when neither a descendant lives nor a PostgreSQL that is
// nobody's stands in it; the short look says the same as the long one.
func TestEmpty(t *testing.T) {
	dir := t.TempDir()
	id, err := Dir(dir)
	must(t, err)
	look := func(what string, want ...int) {
		t.Helper()
		empty, err := Empty(id)
		must(t, err)
		tree, err := Tree(id, os.Getpid())
		must(t, err)
		var pids []int
		for _, p := range tree {
			pids = append(pids, p.PID)
		}
		if empty != (len(want) == 0) || len(pids) != len(want) || len(want) > 0 && pids[0] != want[0] {
			t.Errorf("%s: empty %v, tree %v, want %v", what, empty, pids, want)
		}
	}
	look("nothing there")

	child := exec.Command("sleep", "60")
	must(t, child.Start())
	look("a child that stands elsewhere", child.Process.Pid)
	must(t, child.Process.Kill())
	_ = child.Wait()
	look("it has ended")

	sleep, err := exec.LookPath("sleep")
	must(t, err)
	program := filepath.Join(t.TempDir(), "postgres")
	copyFile(t, sleep, program)
	out, err := exec.Command("sh", "-c", "cd "+dir+" && "+program+" 60 >/dev/null 2>&1 & echo $!").Output()
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	must(t, err)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	until(t, "the program runs", func() bool { at, err := Cwd(pid); return err == nil && at == id && Exe(pid) == "postgres" })
	look("one of nobody's", pid)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	until(t, "it has ended", func() bool { p, err := Read(pid); return err != nil || p.Dead() })
	look("it was killed")
}

func TestRead(t *testing.T) {
	p, err := Read(os.Getpid())
	must(t, err)
	if p.PPID != os.Getppid() || p.Dead() || p.Start == 0 {
		t.Errorf("%+v, the parent is %d", p, os.Getppid())
	}
	if _, err := Read(1 << 22); !os.IsNotExist(err) {
		t.Errorf("a process that is not there: %v", err)
	}
	all, err := All()
	must(t, err)
	for _, q := range all {
		if q.PID == p.PID && (q.PPID != p.PPID || q.Start != p.Start) {
			t.Errorf("%+v in the whole table, %+v alone", q, p)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
