package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
)

// badConfiguration: a file with a mistake that only PostgreSQL knows replaces
// nothing, neither at a reload nor when an agent starts again; it is said, and
// taken up by itself when it was mended.
func badConfiguration(t *testing.T) {
	e := shared(t, time.Minute)
	s := e.healthy()
	host := standby(s)
	file := filepath.Join(e.Data, host, "manada.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(file, append(good[:len(good):len(good)], text...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	told := func() string {
		s, err := e.Status(e.ctx)
		if err != nil {
			return ""
		}
		for _, c := range s.Conditions {
			if c.Code == "M-C03" && c.Node == host {
				return c.Text
			}
		}
		return ""
	}
	write("postgresql:\n  parameters: {work_mem: 5MB}\n  hba:\n    - hostssl all all 10.0.0.0/33 scram-sha-256\n")
	e.refused(e.bare("config", "check", "-c", file), 2, "manada.yaml:", "10.0.0.0/33", "invalid CIDR mask")
	e.kill(e.pid(host, "run"), syscall.SIGHUP)
	e.eventually(20*time.Second, "word of the mistake", func() string {
		if text := told(); !strings.Contains(text, "invalid CIDR mask") {
			return "it says: " + text
		}
		return ""
	})
	e.kill(e.pid(host, "agent"), syscall.SIGKILL)
	e.await("an agent that starts again with what it had", func(s cluster.Status) bool { return s.Health != "down" && told() != "" })
	if v := e.value(e.NodeDSN(host), "show work_mem"); v == "5MB" {
		t.Error("half of a refused file is in use")
	}
	write("postgresql:\n  parameters: {work_mem: 5MB}\n  hba:\n    - hostssl all all 10.0.0.0/8 scram-sha-256\n")
	e.eventually(20*time.Second, "use of the mended file", func() string {
		if v := e.value(e.NodeDSN(host), "show work_mem"); v != "5MB" || told() != "" {
			return v + " " + told()
		}
		return ""
	})
	write("")
	e.kill(e.pid(host, "run"), syscall.SIGHUP)
	e.eventually(20*time.Second, "the old value again", func() string {
		if v := e.value(e.NodeDSN(host), "show work_mem"); v == "5MB" {
			return v
		}
		return ""
	})
	e.healthy()
}
