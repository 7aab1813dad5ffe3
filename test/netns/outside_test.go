package netns

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/test/measure"
)

// onlyTLS: each port that is open beyond loopback is one that the README
// names, and on none of them anybody is served in plain text.
func (l *lab) onlyTLS(t *testing.T) {
	database := []int{2379, 2380, 5430, 5431, 5432, 7400, 8008, 8010}
	for name, want := range map[string][]int{"db1": database, "db2": database, "witness": {2379, 2380, 7400, 8008, 8432}} {
		m := l.hosts[name]
		got := m.listening(t)
		if !slices.Equal(got, want) {
			t.Errorf("%s listens on %v, want %v", name, got, want)
		}
		for _, port := range got {
			addr := net.JoinHostPort(m.addr, strconv.Itoa(port))
			for _, hello := range []struct{ what, text string }{
				{"HTTP", "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
				{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
				{"PostgreSQL", startup("app")},
			} {
				if answer := say(t, addr, hello.text); served(answer) {
					t.Errorf("%s answers %s in plain text: %.80q", addr, hello.what, answer)
				}
			}
		}
	}
}

// served says whether an answer is one to somebody who was let in. Refusals:
// silence, HTTP's 400, a TLS alert, an HTTP/2 that says only its settings is
// none, PostgreSQL's error.
func served(answer []byte) bool {
	switch {
	case len(answer) == 0, answer[0] == 'E', answer[0] == 0x15:
		return false
	}
	return !strings.HasPrefix(string(answer), "HTTP/1.0 400") && !strings.HasPrefix(string(answer), "HTTP/1.1 400")
}

func say(t *testing.T, addr, text string) []byte {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	check(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(c, text)
	b := make([]byte, 4096)
	n, _ := io.ReadAtLeast(c, b, 1)
	return b[:n]
}

// startup is PostgreSQL's first message.
func startup(user string) string {
	body := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00app\x00\x00"
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))) + body
}

// listening lists the TCP ports that are open on a host beyond loopback.
func (m *machine) listening(t *testing.T) []int {
	t.Helper()
	var ports []int
	for _, f := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", m.init.Process.Pid, f))
		check(t, err)
		for _, line := range strings.Split(string(b), "\n") {
			col := strings.Fields(line)
			if len(col) < 4 || col[3] != "0A" {
				continue
			}
			host, port, _ := strings.Cut(col[1], ":")
			raw, err := hex.DecodeString(host)
			check(t, err)
			for i := 0; i < len(raw); i += 4 {
				slices.Reverse(raw[i : i+4])
			}
			ip, _ := netip.AddrFromSlice(raw)
			n, err := strconv.ParseInt(port, 16, 32)
			check(t, err)
			if !ip.Unmap().IsLoopback() && !slices.Contains(ports, int(n)) {
				ports = append(ports, int(n))
			}
		}
	}
	slices.Sort(ports)
	return ports
}

// local is a writer on a host itself, beside the network.
type local struct {
	cmd  *exec.Cmd
	file string
}

// writeOn starts one on PostgreSQL's own socket; the proxy is not asked.
func (l *lab) writeOn(t *testing.T, host string) *local {
	t.Helper()
	w := &local{file: filepath.Join(l.root, "acked-"+host)}
	f, err := os.Create(w.file)
	check(t, err)
	defer f.Close()
	w.cmd = l.hosts[host].command(context.WithoutCancel(t.Context()),
		`NETNS_TEST_ROLE=writer exec "$NETNS_TEST_ROOT/standins/this-test" "host=/var/lib/manada/run user=postgres dbname=app"`)
	w.cmd.Stdout, w.cmd.Stderr = f, os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(t, w.cmd.Start())
	t.Cleanup(func() { w.stop() })
	for deadline := time.Now().Add(10 * time.Second); len(w.acked(t)) < 20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is acknowledged on " + host)
		}
	}
	return w
}

// stop ends it and says when the last commit was acknowledged, and how many were.
func (w *local) stop() (last time.Time, n int) {
	if w.cmd.ProcessState == nil {
		_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL)
		_ = w.cmd.Wait()
	}
	f, err := os.Open(w.file)
	if err != nil {
		return last, 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var id, at int64
		if _, err := fmt.Sscan(sc.Text(), &id, &at); err == nil {
			last, n = time.Unix(0, at), n+1
		}
	}
	return last, n
}

func (w *local) acked(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(w.file)
	check(t, err)
	var ids []string
	lines := strings.Split(string(b), "\n")
	for _, line := range lines[:len(lines)-1] { // the last one may be half written
		id, _, _ := strings.Cut(line, " ")
		ids = append(ids, id)
	}
	return ids
}

// nothingLost looks for each of its commits.
func (w *local) nothingLost(t *testing.T, dsn string) {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), dsn)
	check(t, err)
	defer c.Close(t.Context())
	res, err := c.Exec(t.Context(), "select id from "+measure.Table).ReadAll()
	check(t, err)
	have := map[string]bool{}
	for _, r := range res[0].Rows {
		have[string(r[0])] = true
	}
	lost := 0
	for _, id := range w.acked(t) {
		if !have[id] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d commits that the old primary acknowledged on its own socket are missing", lost)
	}
}
