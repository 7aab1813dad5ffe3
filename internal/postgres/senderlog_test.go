package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/internal/postgres/pgtest"
)

// TestSenderLog: a walsender under a member's name that lived between two
// observations is told by the next one, who it was and when; those of our own
// role, and those under other names, are not.
func TestSenderLog(t *testing.T) {
	h := newHerd(t)
	a := leader(t, "a", h.of(h.identity("a", pki.KindData)), func(c *Config) {
		c.Replication = []cluster.Replicator{{Role: "feed", From: []string{"127.0.0.1"}, Databases: []string{"postgres"}}}
	})
	a.sql("create role feed login replication password 'x'")
	if o := a.observe(); len(o.Started) > 0 {
		t.Fatalf("nobody came: %+v", o.Started)
	}
	if a.StrangerBegan() {
		t.Fatal("nobody began")
	}
	began := time.Now().Add(-time.Millisecond)
	visit := func(kind, name string) {
		t.Helper()
		cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=feed password=x dbname=postgres sslmode=require", a.cfg.Port))
		must(t, err)
		cfg.RuntimeParams["replication"], cfg.RuntimeParams["application_name"] = kind, name
		ctx, cancel := context.WithCancel(deadline(t, 10*time.Second))
		defer cancel()
		streamed := false
		err = pgtest.Impersonate(ctx, cfg, 0, func() { streamed = true; cancel() })
		if !streamed {
			t.Fatalf("as %s: %v", name, err)
		}
	}
	visit("true", "b@e1")
	until(t, "it is told at once that somebody began", a.StrangerBegan)
	if !a.StrangerBegan() {
		t.Error("forgotten before it was observed")
	}
	visit("database", "b~1")
	visit("true", "feed")
	visit("true", "LOG:  received b@e1x")
	// Words of an ordinary session, in several lines.
	a.sql("do $$ begin raise log E'x\\n2026-01-01 00:00:00.000 UTC [1] walsender feed@ b@e1 LOG:  received replication command: START_REPLICATION 0/0'; end $$")
	var got []string
	until(t, "both are told", func() bool {
		for _, s := range a.observe().Started {
			got = append(got, s.Role+" as "+s.Name)
			if s.At.Before(began.Truncate(time.Millisecond)) || s.At.After(time.Now()) || s.PID == 0 {
				t.Errorf("%+v, it began at %s", s, began)
			}
		}
		return len(got) >= 2
	})
	if want := []string{"feed as b@e1", "feed as b~1"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if o := a.observe(); len(o.Started) > 0 {
		t.Errorf("told twice: %+v", o.Started)
	}
}

// A line that is half written is read when it is whole, and a log that was cut
// from its beginning.
func TestSenderLogInParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	line := func(pid int) string {
		return fmt.Sprintf("2026-11-29 03:42:12.090 UTC [%d] walsender feed@[unknown] b@e1 LOG:  received replication command: START_REPLICATION 0/3000000 TIMELINE 1\n", pid)
	}
	put := func(text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }
	var l senderLog
	put(line(1))
	if got := l.look(path); len(got) > 0 {
		t.Errorf("what was there before: %+v", got)
	}
	half := line(2)
	put(line(1) + half[:100])
	if got := l.look(path); len(got) > 0 {
		t.Errorf("half a line: %+v", got)
	}
	put(line(1) + half)
	if got := l.look(path); len(got) != 1 || got[0].PID != 2 || got[0].At.UnixMilli() != time.Date(2026, 11, 29, 3, 42, 12, 90e6, time.UTC).UnixMilli() {
		t.Errorf("the rest of it: %+v", got)
	}
	ours := strings.ReplaceAll(line(4), "feed@", cluster.RoleReplication+"@")
	if got := senderStarts(ours + line(5) + "\t" + line(6)); len(got) != 1 || got[0].PID != 5 {
		t.Errorf("our own, somebody's, and words in somebody's message: %+v", got)
	}
	put(line(3))
	if got := l.look(path); len(got) != 1 || got[0].PID != 3 {
		t.Errorf("after it was cut: %+v", got)
	}
}
