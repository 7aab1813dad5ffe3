// Package herdtest starts and breaks a whole herd on this machine, through the
// program that users have. Used by the end-to-end tests and the bench.
package herdtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/porttest"
	"manada/internal/supervisor"
)

// Herd is a running herd made by `manada up`.
type Herd struct {
	Dir  string // what --dir is given
	Data string // where its hosts' folders are
	bin  string
	own  string // temporary folder to remove, "" if the caller's
	pass string
}

// OwnPorts are options of `manada up`: the herd's ports are out of a range that no
// other test's herd gets while this process lives, whatever of the herd is down.
func OwnPorts() ([]string, error) {
	from, err := porttest.Range()
	return []string{"--ports", strconv.Itoa(from)}, err
}

// Start makes a herd in dir, or in a temporary folder when dir is empty, with the
// given options of `manada up`; or it takes the one that runs there. PostgreSQL
// refuses root and root's temporary folders are 0700, so the folder is 0755.
func Start(ctx context.Context, bin, dir string, options ...string) (*Herd, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	h := &Herd{Dir: dir, bin: bin}
	if dir == "" {
		if h.own, err = os.MkdirTemp("", "manada-herd-"); err != nil {
			return nil, err
		}
		if err := os.Chmod(h.own, 0o755); err != nil {
			return nil, err
		}
		h.Dir = filepath.Join(h.own, "herd")
	}
	if out, err := h.Manada(ctx, append([]string{"up"}, options...)...); err != nil {
		h.Remove()
		return nil, fmt.Errorf("manada up: %w\n%s", err, out)
	}
	return h, h.learn()
}

// StartTree builds the program of this tree and makes a herd with it.
func StartTree(ctx context.Context) (*Herd, error) {
	dir, err := os.MkdirTemp("", "manada-herd-")
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(dir, "manada")
	if err = os.Chmod(dir, 0o755); err == nil { // PostgreSQL refuses root
		var out []byte
		if out, err = exec.CommandContext(ctx, "go", "build", "-o", bin, "manada/cmd/manada").CombinedOutput(); err != nil {
			err = fmt.Errorf("build the program: %w\n%s", err, out)
		}
	}
	var h *Herd
	if err == nil {
		h, err = Start(ctx, bin, filepath.Join(dir, "herd"))
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	h.own = dir
	return h, nil
}

// Relearn reads the superuser's password again, after a rotation.
func (h *Herd) Relearn() error { return h.learn() }

func (h *Herd) learn() error {
	var f struct {
		Data string `json:"data"`
	}
	b, err := os.ReadFile(filepath.Join(h.Dir, "herd.json"))
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return fmt.Errorf("read the herd's file: %w", err)
	}
	h.Data = f.Data
	var s struct {
		Passwords map[string]string `json:"passwords"`
	}
	b, err = os.ReadFile(filepath.Join(h.Data, "master", "identity", "secrets.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return fmt.Errorf("read the herd's secrets: %w", err)
	}
	h.pass = s.Passwords[cluster.RoleSuperuser]
	return nil
}

// Use makes another program the one that runs commands and starts hosts.
func (h *Herd) Use(bin string) { h.bin = bin }

// Manada runs a command of the program on this herd and returns what it printed.
func (h *Herd) Manada(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.bin, append(args, "--dir", h.Dir)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Remove ends the herd and its data.
func (h *Herd) Remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // detached: clean-up after a failed test, too
	defer cancel()
	_, _ = h.Manada(ctx, "down", "--wipe", "--yes")
	if h.own != "" {
		_ = os.RemoveAll(h.own)
	}
}

// Status is the herd's, from whichever host answers.
func (h *Herd) Status(ctx context.Context) (cluster.Status, error) {
	var s cluster.Status
	cmd := exec.CommandContext(ctx, h.bin, "status", "-o", "json", "--dir", h.Dir)
	out, err := cmd.Output()
	if len(out) == 0 {
		return s, fmt.Errorf("manada status: %w", err)
	}
	return s, json.Unmarshal(out, &s)
}

// wait asks for the status until ok says so.
func (h *Herd) wait(ctx context.Context, what string, ok func(cluster.Status) bool) (cluster.Status, error) {
	for {
		s, err := h.Status(ctx)
		if err == nil && ok(s) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			b, _ := json.Marshal(s)
			return s, fmt.Errorf("wait for %s: %w (last status %s, %v)", what, context.Cause(ctx), b, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// WaitSync waits for a primary with a synchronous standby.
func (h *Herd) WaitSync(ctx context.Context) (cluster.Status, error) {
	return h.wait(ctx, "a synchronous standby", func(s cluster.Status) bool {
		return s.Primary != "" && s.K >= 1 && len(s.Sync) >= 1
	})
}

// WaitOtherPrimary waits until another node than old leads.
func (h *Herd) WaitOtherPrimary(ctx context.Context, old string) error {
	_, err := h.wait(ctx, "another primary than "+old, func(s cluster.Status) bool { return s.Primary != "" && s.Primary != old })
	return err
}

// WaitAlone waits until the primary commits alone.
func (h *Herd) WaitAlone(ctx context.Context) error {
	_, err := h.wait(ctx, "the primary to commit alone", func(s cluster.Status) bool { return s.Primary != "" && s.K == 0 })
	return err
}

// Password is the superuser's.
func (h *Herd) Password() string { return h.pass }

// DSN goes through the proxy to the primary.
func (h *Herd) DSN() string { return h.dsn("proxy", "sql") }

// ReadOnlyDSN goes through the proxy to a standby.
func (h *Herd) ReadOnlyDSN() string { return h.dsn("proxy", "read_only") }

// NodeDSN goes to one node's PostgreSQL.
func (h *Herd) NodeDSN(node string) string { return h.dsn(node, "postgresql") }

func (h *Herd) dsn(host, key string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=prefer password='%s'", h.Port(host, key),
		strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(h.pass))
}

// Port reads a port out of a host's configuration, its default when it is not there.
func (h *Herd) Port(host, key string) int {
	def := map[string]int{"postgresql": 5432, "sql": 5431, "read_only": 5430, "http": 8008, "proxy_http": 8010, "backup": 8432, "peer": 7400}[key]
	b, err := os.ReadFile(filepath.Join(h.Data, host, "manada.yaml"))
	if err != nil {
		return def
	}
	for _, line := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+":"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				return n
			}
		}
	}
	return def
}

// Postmaster is the pid of a node's postmaster, 0 when there is none.
func (h *Herd) Postmaster(node string) int {
	b, err := os.ReadFile(filepath.Join(h.Data, node, "pgdata", "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(first))
	return pid
}

// KillPostmaster sends SIGKILL to a node's postmaster.
func (h *Herd) KillPostmaster(node string) error {
	pid := h.Postmaster(node)
	if pid == 0 {
		return fmt.Errorf("no postmaster on %s (%s)", node, filepath.Join(h.Data, node, "pgdata"))
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// Processes are all pids that belong to a host: those with its folder in their
// command line, PostgreSQL's that stand in its PGDATA.
func (h *Herd) Processes(host string) []int {
	dir := filepath.Join(h.Data, host) + "/"
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if bytes.Contains(line, []byte(dir)) || strings.HasPrefix(cwd+"/", dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// KillHost sends SIGKILL to everything of a host, as a power failure would.
func (h *Herd) KillHost(host string) error {
	deadline := time.Now().Add(10 * time.Second)
	for n := 0; ; n++ {
		pids := h.Processes(host)
		if len(pids) == 0 {
			if n == 0 {
				return errors.New("nothing of " + host + " runs")
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes of %s do not end: %v", host, pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}

// StopHost stops a host in order, as `systemctl stop` or `docker stop` would:
// SIGTERM to its supervisor. It returns when the supervisor is gone.
func (h *Herd) StopHost(ctx context.Context, host string) error {
	lock := filepath.Join(h.Data, host, "supervisor.pid")
	holder, held, err := supervisor.LockedBy(lock)
	if err != nil || !held {
		return fmt.Errorf("no supervisor runs on %s: %w", host, err)
	}
	if err := syscall.Kill(holder.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", host, err)
	}
	for holder.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the stop of %s: %w", host, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// StartHost starts a host that was killed; the others go on.
func (h *Herd) StartHost(ctx context.Context, host string) error {
	if out, err := h.Manada(ctx, "up"); err != nil {
		return fmt.Errorf("start %s: %w: %s", host, err, out)
	}
	return nil
}

// Configure adds to the configuration of a host and starts it anew.
func (h *Herd) Configure(ctx context.Context, host, text string) error {
	if err := h.StopHost(ctx, host); err != nil {
		return err
	}
	file := filepath.Join(h.Data, host, "manada.yaml")
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(before, text...), 0o600)
	}
	if err != nil {
		return fmt.Errorf("configure %s: %w", host, err)
	}
	return h.StartHost(ctx, host)
}

// WaitCaughtUp waits until a node has replayed what the primary has now.
func (h *Herd) WaitCaughtUp(ctx context.Context, node string) error {
	end, err := h.value(ctx, h.DSN(), "select pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	for {
		v, err := h.value(ctx, h.NodeDSN(node), "select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() >= '"+end+"' else true end")
		if err == nil && v == "t" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to catch up: %w (%v)", node, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Value runs a query on a node or through the proxy and returns its one value.
func (h *Herd) Value(ctx context.Context, dsn, sql string) (string, error) {
	return h.value(ctx, dsn, sql)
}

func (h *Herd) value(ctx context.Context, dsn, sql string) (string, error) {
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(res) == 0 || len(res[len(res)-1].Rows) == 0 {
		return "", nil
	}
	return string(res[len(res)-1].Rows[0][0]), nil
}
