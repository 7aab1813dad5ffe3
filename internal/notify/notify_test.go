package notify

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/config"
	"manada/internal/store"
)

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, text string, deadline time.Duration, only ...string) (*Notifier, *buffer) {
	t.Helper()
	c, err := config.ParseCommand(text)
	if err != nil {
		t.Fatal(err)
	}
	log := &buffer{}
	n := New(Config{Command: c, Only: only, Deadline: deadline, Log: slog.New(slog.NewTextHandler(log, nil)),
		Who: func() Who { return Who{NodeID: 2, Primary: "slave", PrimaryID: 2} }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { n.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return n, log
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// The command hears of what it wants to hear, in order, and nothing of it is
// interpreted.
func TestTell(t *testing.T) {
	dir := t.TempDir()
	script, heard := filepath.Join(dir, "tell"), filepath.Join(dir, "heard")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nprintf '%s|' \"$@\" >>"+heard+"\necho >>"+heard+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n, _ := start(t, script+` %n %e %r %s %a "%d"`, 0, "promoted", "node_rejoin", "backup_failed")
	for _, kind := range []string{"promoted", "opened", "rewound", "backup_failed"} {
		n.Tell(store.Event{Kind: kind, Text: "$(touch " + dir + "/x) it's \"" + kind + `"`, At: time.Now()})
	}
	want := "2|promoted|repmgrd_failover_promote|1|slave|$(touch " + dir + "/x) it's \"promoted\"|\n" +
		"2|rewound|node_rejoin|1|slave|$(touch " + dir + "/x) it's \"rewound\"|\n" +
		"2|backup_failed|backup_failed|0|slave|$(touch " + dir + "/x) it's \"backup_failed\"|\n"
	var got []byte
	eventually(t, "three events heard", func() bool { got, _ = os.ReadFile(heard); return string(got) == want })
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a shell has read what the event says")
	}
}

// A command that hangs is ended with its children, is told of, and keeps nobody
// waiting.
func TestDeadline(t *testing.T) {
	dir := t.TempDir()
	script, pid := filepath.Join(dir, "hang"), filepath.Join(dir, "pid")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 600 &\necho $! >"+pid+"\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n, log := start(t, script, 200*time.Millisecond)
	began := time.Now()
	for range 3 * waiting {
		n.Tell(store.Event{Kind: "degraded"})
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("telling took %s", d)
	}
	eventually(t, "word of the deadline", func() bool { return strings.Contains(log.String(), "not done within 200ms") })
	if !strings.Contains(log.String(), "too slow") {
		t.Error("nothing says that events were not told")
	}
	child, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	first := strings.TrimSpace(string(child))
	eventually(t, "the end of its child", func() bool {
		b, err := os.ReadFile("/proc/" + first + "/stat")
		now, _ := os.ReadFile(pid)
		return err != nil || strings.Contains(string(b), ") Z ") || strings.TrimSpace(string(now)) != first && len(b) == 0
	})
}
