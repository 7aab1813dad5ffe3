package intruder

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"manada/internal/cluster"
)

// send is a request of a person to backupd with a body of its own. The answer is
// what it says, for an error only.
func (s *site) send(p person, method, path string, body io.Reader) (status int, said string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.ctx, method, "https://"+s.at("backup", backupPort)+"/repo"+path, body)
	must(s, err)
	tr := &http.Transport{TLSClientConfig: p.tls(), DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return resp.StatusCode, string(b)
}

// locked takes the lock of the stanza, as for a backup, until the function is called.
func (s *site) locked(p person) (unlock func()) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.at("backup", backupPort)+"/repo/lock/herd-backup", nil)
	must(s, err)
	tr := &http.Transport{TLSClientConfig: p.tls()}
	resp, err := tr.RoundTrip(req)
	must(s, err)
	if resp.StatusCode != http.StatusOK {
		s.Fatalf("the lock: status %d", resp.StatusCode)
	}
	return func() { cancel(); resp.Body.Close(); tr.CloseIdleConnections() }
}

// set replaces a host's configuration by what change makes of it, and restarts one
// process with it. The function puts it back.
func (s *site) set(host, process string, change func(text string) string) (back func()) {
	s.Helper()
	file := filepath.Join(s.Data, host, "manada.yaml")
	before, err := os.ReadFile(file)
	must(s, err)
	use := func(text []byte) {
		s.Helper()
		must(s, os.WriteFile(file, text, 0o600))
		old := s.process(host, process)
		must(s, syscall.Kill(s.process(host, "run"), syscall.SIGHUP))
		s.eventually("the new configuration", func() string {
			now, err := os.ReadFile(filepath.Join(s.Data, host, "state", "manada.yaml.accepted"))
			if err != nil || !bytes.Equal(now, text) {
				return fmt.Sprintf("%s %v", now, err)
			}
			return ""
		})
		if process != "agent" { // which starts again by itself; SIGTERM ends its PostgreSQL
			must(s, syscall.Kill(old, syscall.SIGTERM))
		}
		s.eventually("another "+process, func() string {
			if pid := s.process(host, process); pid == 0 || pid == old {
				return fmt.Sprint(pid)
			}
			return ""
		})
	}
	use([]byte(change(string(before))))
	return func() { use(before) }
}

// process is a process of a host by its command; 0: there is none.
func (s *site) process(host, command string) int {
	for _, pid := range s.Processes(host) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && args[1] == command {
			return pid
		}
	}
	return 0
}

func (s *site) eventually(what string, wrong func() string) {
	s.Helper()
	var last string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if last = wrong(); last == "" {
			return
		}
	}
	s.Fatalf("no %s: %s", what, last)
}

// condition is what the status says under a code.
func (s *site) condition(code string) (text, hint string) {
	st, err := s.Status(s.ctx)
	if err != nil {
		return "", ""
	}
	for _, c := range st.Conditions {
		if c.Code == code {
			return c.Text, c.Hint
		}
	}
	return "", ""
}

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// floods: a data host stores what it can. The reserve stays free, the status says
// what to do, what is there is read, and WAL goes on by itself with room again.
func (s *site) floods() {
	repo := filepath.Join(s.Data, "backup", "repo")
	var st unix.Statfs_t
	must(s, unix.Statfs(repo, &st))
	reserve := int64(st.Bavail)*st.Bsize>>20 - 64
	little := fmt.Sprintf("\nbackup:\n  repo_reserve: %dMB\n", reserve)
	back := s.set("backup", "backupd", func(text string) string { return text + little })
	defer func() {
		if s.Failed() { // the others go on
			back()
		}
	}()
	s.eventually("repository", func() string {
		if status, said := s.send(copied(s, "", s.cfgs["slave"].IdentityDir()), http.MethodGet, "/list/", nil); status != http.StatusOK {
			return fmt.Sprintf("status %d, %s", status, said)
		}
		return ""
	})
	thief := copied(s, "data host", s.cfgs["slave"].IdentityDir())
	unlock := s.locked(thief)
	defer unlock()
	label := time.Now().Format("20060102-150405") + "F"
	status, said := s.send(thief, http.MethodPut, "/blob/backup/herd/"+label+"/endless", endless{})
	if status/100 == 2 { // who does not stop sending may not hear why
		s.Errorf("an endless file: status %d, %s", status, said)
	}
	stored := 0
	for ; stored < 256; stored++ {
		status, said = s.send(thief, http.MethodPut, fmt.Sprintf("/blob/backup/herd/%s/%d", label, stored), io.LimitReader(endless{}, 4<<20))
		if status != http.StatusNoContent {
			break
		}
	}
	if status != http.StatusInsufficientStorage || !strings.Contains(said, "backup.repo_reserve") {
		s.Errorf("after %d files of 4 MB with 64 MB of room: status %d, %s", stored, status, said)
	}
	s.eventually("word that the repository is full", func() string {
		text, hint := s.condition("M-B14")
		if !strings.Contains(text, "backup.repo_reserve") || !strings.Contains(hint, "retention_full") {
			return fmt.Sprintf("the condition %q %q", text, hint)
		}
		return ""
	})
	// Others use the volume, too, and a segment with little in it is small.
	s.set("backup", "backupd", func(text string) string { return strings.Replace(text, fmt.Sprintf("%dMB", reserve), "1000TB", 1) })
	s.writesWAL()
	s.eventually("word that archiving fails", func() string {
		text, _ := s.condition("M-B01")
		if !strings.Contains(text, "takes no new files") {
			return fmt.Sprintf("the condition %q", text)
		}
		return ""
	})
	if out, err := s.Manada(s.ctx, "backups"); err != nil {
		s.Errorf("manada backups: %v\n%s", err, out)
	}
	back() // room
	s.writesWAL()
	s.eventually("archive that goes on by itself", func() string {
		now, err := s.Status(s.ctx)
		if err != nil || now.Health != cluster.HealthOK || now.Backup.WaitingSegments == nil || *now.Backup.WaitingSegments > 0 {
			return fmt.Sprintf("%v %v %+v", err, now.Conditions, now.Backup)
		}
		return ""
	})
}

// writesWAL has the primary fill a segment and begin the next.
func (s *site) writesWAL() {
	s.Helper()
	for _, sql := range []string{"select pg_logical_emit_message(true, 'test', 'something')", "select pg_switch_wal()"} {
		_, err := s.Value(s.ctx, s.DSN(), sql)
		must(s, err)
	}
}
