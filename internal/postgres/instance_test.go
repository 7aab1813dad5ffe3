package postgres

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
)

func TestFoundStartObserveStop(t *testing.T) {
	n := newNode(t, "alpha")
	ctx := deadline(t, 30*time.Second)
	if o := n.observe(); o.State != cluster.PostgresDown || !o.TreeEmpty || o.HasData {
		t.Fatalf("before founding: %+v", o)
	}
	must(t, os.MkdirAll(n.cfg.DataDir+".new/rest-of-an-interrupted-run", 0o700))
	begun := time.Now()
	must(t, n.Found(ctx))
	t.Log("found", time.Since(begun))
	must(t, n.Found(ctx)) // idempotent
	o := n.observe()
	if !o.HasData || o.Instance == "" || o.FormerPrimary || !o.CleanStop {
		t.Fatalf("after founding: %+v", o)
	}
	begun = time.Now()
	must(t, n.StartFounding(ctx))
	t.Log("start", time.Since(begun))
	// Nothing was acknowledged yet: an interrupted founding is begun again.
	must(t, n.Stop(ctx, guardian.Immediate, 5*time.Second))
	must(t, n.StartFounding(ctx))
	_, err := n.SetSync(ctx, cluster.CommitAlone())
	must(t, err)
	must(t, n.WriteControl(ctx, 1, "alpha", "xyz"))
	begun = time.Now()
	o = n.observe()
	t.Log("observe", time.Since(begun))
	if o.State != cluster.PostgresPrimary || o.Timeline != 1 || o.Flushed == 0 || o.ControlRow == nil || o.ControlRow.Nonce != "xyz" || o.Sync != "" {
		t.Fatalf("primary: %+v", o)
	}
	for _, q := range []string{"fsync", "data_checksums", "wal_log_hints"} {
		if v := n.sql("show " + q); v != "on" {
			t.Errorf("%s = %s", q, v)
		}
	}
	must(t, n.Reconfigure(ctx, map[string]string{"work_mem": "7MB", "max_connections": "41"}, []string{"host all all 127.0.0.2/32 scram-sha-256"}))
	until(t, "the new settings", func() bool {
		return n.sql("show work_mem") == "7MB" && strings.Contains(strings.Join(n.observe().PendingRestart, " "), "max_connections")
	})
	begun = time.Now()
	must(t, n.Stop(ctx, guardian.Fast, 5*time.Second))
	t.Log("stop", time.Since(begun))
	o = n.observe()
	if o.State != cluster.PostgresDown || !o.TreeEmpty || !o.CleanStop || o.Control.State != ControlShutDown {
		t.Fatalf("stopped: %+v", o)
	}
	if err := n.StartFounding(ctx); err == nil {
		t.Fatal("a former leader was started as a primary again")
	}
	must(t, n.StartStandby(ctx))
	if o = n.observe(); o.State != cluster.PostgresStandby || !strings.Contains(o.Sync, cluster.Placeholder) {
		t.Fatalf("standby: %+v", o)
	}
}

// The port is somebody else's: the error says so, in PostgreSQL's own words.
func TestStartOnATakenPort(t *testing.T) {
	n := newNode(t, "a")
	n.foundFromTemplate()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.cfg.Port)))
	must(t, err)
	defer l.Close()
	err = n.StartFounding(deadline(t, 20*time.Second))
	if err == nil || !strings.Contains(err.Error(), "could not bind") || !strings.Contains(err.Error(), "HINT") || strings.Contains(err.Error(), "starting PostgreSQL") {
		t.Errorf("%v", err)
	}
	must(t, l.Close())
	until(t, "the guardian sees that nothing is left of it", func() bool { return n.observe().TreeEmpty })
	must(t, n.StartFounding(deadline(t, 20*time.Second)))
}

func TestFoundRefusesForeignDirectory(t *testing.T) {
	n := newNode(t, "alpha")
	must(t, os.MkdirAll(n.cfg.DataDir, 0o700))
	must(t, os.Mkdir(filepath.Join(n.cfg.DataDir, "lost+found"), 0o700)) // comes first
	must(t, os.WriteFile(filepath.Join(n.cfg.DataDir, "photo.jpg"), nil, 0o600))
	err := n.Found(t.Context())
	if err == nil || !strings.Contains(err.Error(), "photo.jpg") {
		t.Fatal(err)
	}
}
