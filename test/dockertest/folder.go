package dockertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
)

// Containers of deploy/compose, and the nodes that they are.
var (
	Containers = []string{"master", "slave", "pgpool", "pgbackrest"}
	Nodes      = map[string]string{"master": "master-1", "slave": "slave-2"}
)

// Folder is a copy of deploy/compose in which commands are typed.
type Folder struct {
	Dir    string
	own    string
	offset int
}

// Copy makes one. Containers of these names that exist already are somebody
// else's: they are refused, not removed.
func Copy(ctx context.Context, root string) (*Folder, error) {
	out, err := exec.CommandContext(ctx, "docker", "ps", "-a", "--format", "{{.Names}}").Output()
	if err != nil {
		return nil, fmt.Errorf("ask the engine: %w", err)
	}
	for _, name := range strings.Fields(string(out)) {
		for _, c := range Containers {
			if name == c {
				return nil, fmt.Errorf("there is a container %q already: remove it, or docker-compose down where it belongs", c)
			}
		}
	}
	own, err := os.MkdirTemp("", "manada-guide-")
	if err != nil {
		return nil, err
	}
	f := &Folder{Dir: filepath.Join(own, "g"+filepath.Base(own)[len("manada-guide-"):]), own: own}
	if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(root, "deploy/compose"), f.Dir).CombinedOutput(); err != nil {
		os.RemoveAll(own)
		return nil, fmt.Errorf("copy deploy/compose: %w: %s", err, out)
	}
	if err := f.movePorts(); err != nil {
		os.RemoveAll(own)
		return nil, err
	}
	return f, nil
}

// published are the ports of deploy/compose on its host.
var published = []int{5431, 5432, 5433}

// movePorts publishes other ports where something else has these: those of which
// all are free, or $MANADA_GUIDE_PORTS further up.
func (f *Folder) movePorts() (err error) {
	if v := os.Getenv("MANADA_GUIDE_PORTS"); v != "" {
		if f.offset, err = strconv.Atoi(v); err != nil {
			return fmt.Errorf("MANADA_GUIDE_PORTS: %w", err)
		}
	} else if f.offset, err = freeOffset(); err != nil {
		return err
	}
	if f.offset == 0 {
		return nil
	}
	file := filepath.Join(f.Dir, "docker-compose.yml")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(b)
	for _, port := range published {
		text = strings.ReplaceAll(text, fmt.Sprintf(`"%d:5432"`, port), fmt.Sprintf(`"%d:5432"`, port+f.offset))
		text = strings.ReplaceAll(text, fmt.Sprintf("127.0.0.1:%d\n", port), fmt.Sprintf("127.0.0.1:%d\n", port+f.offset))
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// freeOffset is how far up from the published ports all of them are free.
func freeOffset() (int, error) {
	for offset := 0; offset < 50000; offset += 1000 {
		if free(offset) {
			return offset, nil
		}
	}
	return 0, fmt.Errorf("no three ports are free of those that end as %v do", published)
}

func free(offset int) bool {
	for _, port := range published {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port+offset)) // as the engine does: everywhere
		if err != nil {
			return false
		}
		defer l.Close()
	}
	return true
}

// Port is where the host finds what deploy/compose publishes on a port.
func (f *Folder) Port(n int) int { return n + f.offset }

// Remove ends the containers and removes volumes, network and folder.
func (f *Folder) Remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // detached: clean-up after a failed test, too
	defer cancel()
	_, _ = f.run(ctx, "docker-compose", "down", "-v", "-t", "5")
	_, _ = f.run(ctx, "docker", "network", "rm", "postgres_net") // made by hand it stays otherwise
	_ = os.RemoveAll(f.own)
}

func (f *Folder) run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = f.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(out))
	}
	return string(out), nil
}

// Type types a line at a terminal in the folder.
func (f *Folder) Type(ctx context.Context, line string) (string, error) {
	return terminal(ctx, f.Dir, line, "", 3*time.Minute)
}

// TypeWith also types an answer.
func (f *Folder) TypeWith(ctx context.Context, line, answer string) (string, error) {
	return terminal(ctx, f.Dir, line, answer+"\n", 3*time.Minute)
}

// Exec runs a command in a container, without a terminal.
func (f *Folder) Exec(ctx context.Context, container string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append([]string{"exec", container}, argv...)...)
	out, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, tail(e.Stderr))
		}
		return string(out), fmt.Errorf("in %s: %s: %w", container, strings.Join(argv, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Status asks whichever container answers.
func (f *Folder) Status(ctx context.Context) (s cluster.Status, err error) {
	err = errors.New("no container")
	for _, c := range []string{"pgbackrest", "slave", "master"} {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		cmd := exec.CommandContext(one, "docker", "exec", c, "manada", "status", "-o", "json")
		var out []byte
		out, err = cmd.Output()
		cancel()
		if len(out) > 0 {
			if err = json.Unmarshal(out, &s); err == nil {
				return s, nil
			}
		}
	}
	return s, fmt.Errorf("manada status: %w", err)
}

// Wait asks for the status until ok says so.
func (f *Folder) Wait(ctx context.Context, what string, within time.Duration, ok func(cluster.Status) bool) (cluster.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		s, err := f.Status(ctx)
		if err == nil && ok(s) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			b, _ := json.MarshalIndent(s, "", " ")
			return s, fmt.Errorf("wait for %s: not within %s (%v)\n%s", what, within, err, b)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Whole says whether the herd is complete: a primary, commits wait for a
// standby, three of three voters.
func Whole(s cluster.Status) bool {
	return s.Primary != "" && s.K >= 1 && len(s.Sync) >= 1 && s.Store != nil && s.Store.Voters == 3 && s.Store.Up == 3
}

// WaitWhole waits until the herd is complete.
func (f *Folder) WaitWhole(ctx context.Context, within time.Duration) (cluster.Status, error) {
	return f.Wait(ctx, "a whole, synchronous herd", within, Whole)
}

// DSN is what `manada uri` prints in the proxy's container.
func (f *Folder) DSN(ctx context.Context) (string, error) {
	return f.Exec(ctx, "pgpool", "manada", "uri")
}

// NodeDSN is the same log-in at the port that a node's container publishes.
func (f *Folder) NodeDSN(ctx context.Context, container string) (string, error) {
	dsn, err := f.DSN(ctx)
	port := map[string]int{"master": 5432, "slave": 5433}[container]
	return strings.Replace(dsn, fmt.Sprintf(":%d/", f.Port(5431)), fmt.Sprintf(":%d/", f.Port(port)), 1), err
}

// Value runs a query as superuser in a node's container and returns its value.
func (f *Folder) Value(ctx context.Context, container, sql string) (string, error) {
	return f.Exec(ctx, container, "psql", "-U", "postgres", "-d", "app_db", "-Atc", sql)
}

// WaitCaughtUp waits until a node has replayed what the primary has now.
func (f *Folder) WaitCaughtUp(ctx context.Context, container string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dsn, err := f.DSN(ctx)
	if err != nil {
		return err
	}
	end, err := Query(ctx, dsn, "begin; select pg_current_wal_lsn(); commit")
	if err != nil {
		return err
	}
	for {
		v, err := f.Value(ctx, container, "select not pg_is_in_recovery() or pg_last_wal_replay_lsn() >= '"+end+"'")
		if err == nil && v == "t" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to catch up to %s: %w (%v)", container, end, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Query runs statements and returns the first value that came.
func Query(ctx context.Context, dsn, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer c.Close(context.WithoutCancel(ctx))
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	for _, r := range res {
		if len(r.Rows) > 0 {
			return string(r.Rows[0][0]), nil
		}
	}
	return "", nil
}
