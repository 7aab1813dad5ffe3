package porttest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// rangeEnv makes this program one that takes ranges below the folder that it names
// and holds them until its input ends.
const rangeEnv = "PORTTEST_RANGES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(rangeEnv); dir != "" {
		r := ranges{dir: dir}
		for range 3 {
			start, err := r.take()
			fmt.Println(start, err)
		}
		fmt.Println("all")
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		return
	}
	os.Exit(m.Run())
}

// TestPick: no port twice, also while nobody listens on it, and nobody does.
func TestPick(t *testing.T) {
	seen := map[int]bool{}
	for range 2 * Size {
		port, err := Pick()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d twice", port)
		}
		seen[port] = true
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	start, err := Range()
	if err != nil {
		t.Fatal(err)
	}
	for port := range seen {
		if port >= start && port < start+Size {
			t.Errorf("port %d is of the range from %d", port, start)
		}
	}
}

// TestRangesOfProcesses: what one process has no other gets, until it is gone,
// also by a kill; and all there is can be had.
func TestRangesOfProcesses(t *testing.T) {
	dir := t.TempDir()
	taken := map[int]bool{}
	take := func(start int) {
		t.Helper()
		if taken[start] {
			t.Errorf("the range from %d twice", start)
		}
		for _, usual := range []int{15430, 15431, 15432, 17400, 18008, 18010, 18432, 22379, 22380, 25432, 27400, 28008} {
			if usual >= start && usual < start+Size {
				t.Errorf("the range from %d has %d", start, usual)
			}
		}
		taken[start] = true
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), rangeEnv+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs := 0
	for s := bufio.NewScanner(out); s.Scan() && s.Text() != "all"; theirs++ {
		var start int
		if _, err := fmt.Sscanf(s.Text(), "%d <nil>", &start); err != nil {
			t.Fatal(s.Text())
		}
		take(start)
	}
	if theirs != 3 {
		t.Fatalf("the other process has %d ranges", theirs)
	}
	r := ranges{dir: dir}
	all := func() (n int) {
		t.Helper()
		for {
			start, err := r.take()
			if err == errNone {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			take(start)
			n++
		}
	}
	if n := all(); n < 100 {
		t.Errorf("only %d ranges", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	clear(taken)
	if n := all(); n != theirs {
		t.Errorf("%d ranges of %d came back with the end of the process", n, theirs)
	}
	if _, err := r.take(); err == nil || !strings.Contains(err.Error(), "no free port") {
		t.Error(err)
	}
}
