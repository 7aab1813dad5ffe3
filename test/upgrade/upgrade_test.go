package upgrade

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/test/herdtest"
	"manada/test/measure"
)

// before is the commit of the release before.
const before = "30928c7735d8"

// TestHostByHost: no acknowledged commit is lost, the herd is well after each
// host, and what is new in this release is there at the end.
func TestHostByHost(t *testing.T) {
	if testing.Short() {
		t.Skip("starts herds of two releases")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "manada-upgrade-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	was, is := build(t, ctx, dir, before), build(t, ctx, dir, "")
	h, err := herdtest.Start(ctx, was, filepath.Join(dir, "herd"))
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrade{T: t, Herd: h, ctx: ctx}
	t.Cleanup(h.Remove)
	s, err := h.WaitSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := h.Manada(ctx, "backup", "--type", "full"); err != nil {
		t.Fatalf("backup by the old release: %v\n%s", err, out)
	}
	if err := measure.Prepare(ctx, h.DSN()); err != nil {
		t.Fatal(err)
	}
	w := measure.Start(ctx, h.DSN(), 1)
	defer w.Stop()

	h.Use(is)
	primary := s.Primary
	u.host("backup")
	u.host("proxy")
	for _, n := range s.Nodes {
		if n.Role == cluster.RoleStandby {
			u.host(n.Name)
			u.verbs(was, is)
			u.manada("switchover", n.Name)
		}
	}
	u.host(primary)
	u.manada("switchover", primary)
	u.manada("backup", "--type", "incr")
	u.well()
	w.Stop()
	t.Logf("%d commits acknowledged, longest gap %s", w.Acked(), w.Outage(time.Time{}))
	for _, node := range []string{"master", "slave"} {
		if err := h.WaitCaughtUp(ctx, node); err != nil {
			t.Fatal(err)
		}
		if lost, err := w.Lost(ctx, h.NodeDSN(node)); err != nil || len(lost) > 0 {
			t.Errorf("%s lacks %v of %d acknowledged commits: %v", node, lost, w.Acked(), err)
		}
	}
	// A failover of the new release, and a backup chain over both.
	if err := h.KillPostmaster(primary); err != nil {
		t.Fatal(err)
	}
	if err := h.WaitOtherPrimary(ctx, primary); err != nil {
		t.Fatal(err)
	}
	u.well()
	to := filepath.Join(dir, "copy")
	u.manada("restore", "--to", to)
}

type upgrade struct {
	*testing.T
	*herdtest.Herd
	ctx context.Context
}

func (u *upgrade) manada(args ...string) {
	u.Helper()
	if out, err := u.Manada(u.ctx, args...); err != nil {
		u.Fatalf("manada %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// verbs gives orders by the programs of both releases, while hosts of both answer, each
// often enough to come to both.
func (u *upgrade) verbs(was, is string) {
	u.Helper()
	for _, program := range []string{was, is} {
		u.Use(program)
		for range 4 {
			u.manada("pause", "--reason", "upgrade")
			u.manada("resume")
		}
		u.manada("config", "set", "work_mem", "5MB")
		u.manada("config", "unset", "work_mem")
		u.manada("node", "token")
		u.manada("explain")
	}
	u.manada("proxy", "show", "pools")
	u.Use(is)
}

// host gives a host the new program: it is stopped in order and started again.
func (u *upgrade) host(name string) {
	u.Helper()
	began := time.Now()
	if err := u.StopHost(u.ctx, name); err != nil {
		u.Fatal(err)
	}
	if err := u.StartHost(u.ctx, name); err != nil {
		u.Fatal(err)
	}
	u.well()
	u.Logf("%s runs the new release, %.1f s", name, time.Since(began).Seconds())
}

// well waits for a herd that is as it should be, but for versions that differ.
func (u *upgrade) well() {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.ctx, 90*time.Second)
	defer cancel()
	var s cluster.Status
	var wrong string
	for ctx.Err() == nil {
		var err error
		if s, err = u.Status(ctx); err == nil {
			if wrong = amiss(s); wrong == "" {
				return
			}
		} else {
			wrong = err.Error()
		}
		time.Sleep(100 * time.Millisecond)
	}
	u.Fatalf("the herd is not well: %s\n%+v", wrong, s)
}

func amiss(s cluster.Status) string {
	if s.Primary == "" || s.K < 1 || len(s.Sync) < 1 || s.Store == nil || s.Store.Up != 3 {
		return fmt.Sprintf("primary %q k %d sync %v store %+v", s.Primary, s.K, s.Sync, s.Store)
	}
	for _, c := range s.Conditions {
		if c.Severity != cluster.Info {
			return c.Code + " " + c.Text
		}
	}
	return ""
}

// build makes the program of a commit, "" for the tree as it is.
func build(t *testing.T, ctx context.Context, dir, commit string) string {
	t.Helper()
	tree, bin := filepath.Join("..", ".."), filepath.Join(dir, "manada-"+commit)
	if commit != "" {
		src := filepath.Join(dir, "src-"+commit)
		if err := os.Mkdir(src, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(ctx, "sh", "-c", "set -e; git -C "+tree+" archive -o "+src+".tar "+commit+"; tar -x -C "+src+" -f "+src+".tar").CombinedOutput(); err != nil {
			t.Fatalf("take the release before out of git: %v\n%s", err, out)
		}
		tree = src
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, "./cmd/manada")
	cmd.Dir, cmd.Env = tree, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return bin
}
