package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStandbySaysWhyItDoesNotStream: the cause is in the receiver's words, and
// gone when it streams again.
func TestStandbySaysWhyItDoesNotStream(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	// One transaction each: the receiver reconnects faster than the first commits.
	a.sql("alter role manada_replication nologin")
	a.sql("select pg_terminate_backend(pid) from pg_stat_replication")
	until(t, "the cause", func() bool {
		return strings.Contains(b.observe().ReceiverError, `role "manada_replication" is not permitted to log in`)
	})
	a.sql("alter role manada_replication login")
	until(t, "streaming, and no cause", func() bool { o := b.observe(); return o.Streaming && o.ReceiverError == "" })
}

func TestReceiverWords(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	write := func(s string) {
		t.Helper()
		must(t, os.WriteFile(log, []byte(s), 0o600))
	}
	var w receiverWords
	now := time.Unix(1000, 0)
	look := func(missed bool) string { now = now.Add(time.Second); return w.look(log, now, missed) }
	old := "2026-01-01 [1] walreceiver FATAL:  could not connect to the primary server: of yesterday\n"
	write(old)
	if s := look(false); s != "" {
		t.Errorf("while it streams: %q", s)
	}
	if s := look(true); s != "" {
		t.Errorf("of before: %q", s)
	}
	write(old + "x FATAL:  password authentication failed for user \"app\"\nx FATAL:  could not connect to the primary server: connection to server at \"1.2.3.4\", port 5432 failed: FATAL:  password authentication failed for user \"manada_replication\"\n")
	want := "could not connect to the primary server: connection to server at \"1.2.3.4\", port 5432 failed: FATAL:  password authentication failed for user \"manada_replication\""
	if s := look(true); s != want {
		t.Errorf("%q", s)
	}
	write("a short log: FATAL:  database system identifier differs between the primary and standby\n")
	if s := look(true); s != "database system identifier differs between the primary and standby" {
		t.Errorf("a log that was cut: %q", s)
	}
	if s := look(false); s != "" {
		t.Errorf("it streams again: %q", s)
	}
}
