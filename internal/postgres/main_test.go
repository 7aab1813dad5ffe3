package postgres

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
	"manada/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// node is an instance under test with its guardian.
type node struct {
	*Instance
	g *guardian.Client
	t *testing.T
}

var testPasswords = Passwords{Superuser: "super", Replication: "repl' \\x:", Rewind: "rewind", Monitor: "monitor", Proxy: "proxy"}

func newNode(t *testing.T, name string, change ...func(*Config)) *node {
	t.Helper()
	dir := pgtest.Dir(t)
	cfg := Config{
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), Port: pgtest.Port(t), Node: name, Cluster: "test",
		Passwords: testPasswords, Params: map[string]string{"shared_buffers": "16MB", "max_connections": "40"},
		QueryTimeout: 3 * time.Second,
		Logger:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	g := pgtest.Guardian(t, cfg.DataDir, cfg.RunDir)
	i, err := New(cfg, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(i.cfg.LogFile)
			t.Logf("log of %s:\n%s", name, b[max(0, len(b)-3000):])
		}
	})
	return &node{i, g, t}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func (n *node) observe() Observation {
	n.t.Helper()
	o, err := n.Observe(deadline(n.t, 10*time.Second))
	if err != nil {
		n.t.Fatal(err)
	}
	return o
}

func (n *node) sql(q string) string {
	n.t.Helper()
	v, err := n.value(deadline(n.t, 20*time.Second), q)
	if err != nil {
		n.t.Fatalf("%s: %v", q, err)
	}
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx := deadline(t, 15*time.Second)
	if err := poll(ctx, 10*time.Millisecond, func() (bool, error) { return f(), nil }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

var template struct {
	sync.Once
	dir string
}

// foundFromTemplate copies one founded directory: initdb takes seconds.
func (n *node) foundFromTemplate() {
	n.t.Helper()
	template.Do(func() {
		must(n.t, n.Found(deadline(n.t, 60*time.Second)))
		template.dir = filepath.Join(os.TempDir(), "template")
		must(n.t, exec.Command("cp", "-a", n.cfg.DataDir, template.dir).Run())
	})
	if _, err := os.Stat(n.cfg.DataDir); err == nil {
		return
	}
	must(n.t, exec.Command("cp", "-a", template.dir, n.cfg.DataDir).Run())
	must(n.t, n.newInstanceID(n.cfg.DataDir, nil))
}

// leader founds a node and makes it primary, committing alone.
func leader(t *testing.T, name string, change ...func(*Config)) *node {
	t.Helper()
	n := newNode(t, name, change...)
	ctx := deadline(t, 30*time.Second)
	n.foundFromTemplate()
	must(t, n.StartFounding(ctx))
	_, err := n.SetSync(ctx, cluster.CommitAlone())
	must(t, err)
	must(t, n.WriteControl(ctx, 1, name, "nonce-1"))
	return n
}
