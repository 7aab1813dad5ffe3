package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
)

// statusOf is the herd as one host sees it.
func (e *env) statusOf(host string) cluster.Status {
	e.Helper()
	var s cluster.Status
	r := e.ok(e.bare("status", "-o", "json", "-c", filepath.Join(e.Data, host, config.FileName)))
	if err := s.UnmarshalJSON([]byte(r.out)); err != nil {
		e.Fatal(err)
	}
	if s.SeenFrom != host {
		e.Errorf("status on %s was answered by %s", host, s.SeenFrom)
	}
	return s
}

// repositoryAway: what cannot be asked is unknown, not nothing; first a backup
// service that hangs, then a host that is gone. A host whose file has a mistake
// can still be asked.
func repositoryAway(t *testing.T) {
	e := shared(t, 2*time.Minute)
	s := e.healthy()
	last := e.labels()
	label := last[len(last)-1]
	pid := e.pid("backup", "backupd")
	thaw := func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(thaw)
	e.kill(pid, syscall.SIGSTOP)
	e.value(e.DSN(), "select pg_logical_emit_message(true, 'test', 'something to archive')")
	e.value(e.DSN(), "select pg_switch_wal()")
	for _, host := range hosts[:3] {
		e.unknownFrom(host, label)
	}
	out := e.ok(e.bare("status", "-c", filepath.Join(e.Data, s.Primary, config.FileName))).out
	if strings.Contains(out, "archive ok") || !strings.Contains(out, "unknown for") {
		t.Errorf("with a segment waiting for a service that hangs:\n%s", out)
	}
	thaw()
	e.knownAgain(label)

	if err := e.StopHost(e.ctx, "backup"); err != nil {
		t.Fatal(err)
	}
	for _, host := range hosts[:2] {
		e.unknownFrom(host, label)
	}
	follows := standby(e.statusOf(s.Primary))
	e.anotherAgent(follows)
	e.unknownFrom(follows, label)
	e.askedWithAMistake(t, s.Primary)
	if err := e.StartHost(e.ctx, "backup"); err != nil {
		t.Fatal(err)
	}
	e.knownAgain(label)
	e.healthy()
}

// anotherAgent kills a host's agent and waits until the next one answers.
func (e *env) anotherAgent(host string) {
	e.Helper()
	agent := e.pid(host, "agent")
	e.kill(agent, syscall.SIGKILL)
	e.eventually(30*time.Second, "another agent of "+host, func() string {
		r := e.bare("status", "-o", "json", "-c", filepath.Join(e.Data, host, config.FileName))
		var s cluster.Status
		if err := s.UnmarshalJSON([]byte(r.out)); err != nil || s.SeenFrom != host {
			return fmt.Sprintf("%v, %s answers", err, s.SeenFrom)
		}
		if p := e.pids(host, "agent"); len(p) != 1 || p[0] == agent {
			return fmt.Sprint(p)
		}
		return ""
	})
}

// unknownFrom waits until a host says that it does not know, and what it knew.
func (e *env) unknownFrom(host, label string) {
	e.Helper()
	e.eventually(15*time.Second, host+" to say that the repository does not answer", func() string {
		s := e.statusOf(host)
		if told(s, "M-B03") {
			e.Fatalf("%s says that there is no backup: %+v", host, s.Backup)
		}
		if b := s.Backup; !told(s, "M-B07") || b == nil || b.UnknownSince == nil || b.Last == nil || b.Last.Label != label {
			return fmt.Sprintf("%+v %+v", s.Backup, s.Conditions)
		}
		return ""
	})
	if m := e.metrics(host); !strings.Contains(m, "manada_backup_last_stop_timestamp_seconds{") {
		e.Errorf("the metric of the last backup is gone on %s", host)
	}
}

func (e *env) knownAgain(label string) {
	e.Helper()
	for _, host := range hosts[:3] {
		e.eventually(30*time.Second, host+" to hear of the repository again", func() string {
			if r := e.bare("status", "-c", filepath.Join(e.Data, host, config.FileName)); r.code != 0 {
				return r.err
			}
			s := e.statusOf(host)
			if b := s.Backup; told(s, "M-B07") || told(s, "M-B02") || b == nil || b.UnknownSince != nil || b.Last == nil || b.Last.Label != label {
				return fmt.Sprintf("%+v %+v", s.Backup, s.Conditions)
			}
			return ""
		})
	}
}

// metrics are what a host's agent exports.
func (e *env) metrics(host string) string {
	e.Helper()
	req, err := http.NewRequestWithContext(e.ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", e.Port(host, "http")), nil)
	if err != nil {
		e.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		e.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		e.Fatal(err)
	}
	return string(b)
}

func told(s cluster.Status, code string) bool {
	for _, c := range s.Conditions {
		if c.Code == code {
			return true
		}
	}
	return false
}

// askedWithAMistake: a typo in its file does not blind a host.
func (e *env) askedWithAMistake(t *testing.T, host string) {
	good, err := os.ReadFile(filepath.Join(e.Data, host, config.FileName))
	if err != nil {
		t.Fatal(err)
	}
	for _, mistake := range []string{"prots:\n  http: 1\n", "\tbroken: [\n"} {
		file := filepath.Join(e.Data, host, "mistake.yaml")
		if err := os.WriteFile(file, append(good[:len(good):len(good)], mistake...), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range []string{"status", "explain", "history"} {
			r := e.ok(e.bare(c, "-c", file))
			if !strings.Contains(r.out, host) || !strings.Contains(r.err, "note: ") {
				t.Errorf("%s with a mistake in the file:\n%s%s", c, r.out, r.err)
			}
		}
		e.refused(e.bare("switchover", "-c", file), 2)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
