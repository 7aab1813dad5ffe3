package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"manada/internal/porttest"
	"manada/internal/proxy/scram"
)

const (
	pgBin    = "/usr/lib/postgresql/15/bin/"
	password = "bench"
)

// stage is a PostgreSQL and what stands before it.
type stage struct {
	dir      string
	port     int // PostgreSQL's
	verifier string
	procs    []*exec.Cmd
	left     []string // folders in the rivals' root
}

func (s *stage) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func (s *stage) socket() string { return filepath.Join(s.dir, ".s.PGSQL."+strconv.Itoa(s.port)) }

func dsn(addr, more string) string {
	return "postgres://bench:" + password + "@" + addr + "/postgres?" + more
}

// newStage makes and starts PostgreSQL with pgbench's tables.
func newStage(ctx context.Context) (*stage, error) {
	dir, err := os.MkdirTemp("/tmp", "manada-bench-")
	if err != nil {
		return nil, err
	}
	s := &stage{dir: dir}
	if s.port, err = porttest.Pick(); err != nil {
		return s, err
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return s, err
	}
	keys, err := scram.FromPassword(password, []byte("salt of the bench"), 4096)
	if err != nil {
		return s, err
	}
	s.verifier = keys.Verifier.String()
	data := filepath.Join(dir, "data")
	if out, err := s.command(pgBin+"initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8").CombinedOutput(); err != nil {
		return s, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	hba := "local all postgres peer\nlocal all all scram-sha-256\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		return s, err
	}
	if _, err := s.start("postgres", s.command(pgBin+"postgres", "-D", data, "-p", strconv.Itoa(s.port), "-k", dir, "-c", "listen_addresses=127.0.0.1",
		"-c", "fsync=off", "-c", "max_connections=1000", "-c", "shared_buffers=128MB", "-c", "autovacuum=off")); err != nil {
		return s, err
	}
	return s, s.fill(ctx)
}

// command runs as the user postgres when this is root.
func (s *stage) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if u, err := user.Lookup("postgres"); err == nil && os.Geteuid() == 0 {
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

// start starts something that stays, with a log of its own, and gives its pid.
func (s *stage) start(name string, cmd *exec.Cmd) (int, error) {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	s.procs = append(s.procs, cmd)
	return cmd.Process.Pid, nil
}

func (s *stage) close() {
	for i := len(s.procs) - 1; i >= 0; i-- {
		p := s.procs[i]
		_ = p.Process.Signal(syscall.SIGQUIT)
		_ = p.Wait()
	}
	if os.Getenv("KEEP") == "" {
		for _, dir := range append(s.left, s.dir) {
			_ = os.RemoveAll(dir)
		}
	}
}

// ready waits until something answers a query there.
func ready(ctx context.Context, dsn string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, dsn)
		if err == nil {
			_, err = c.Exec(ctx, "select 1")
			_ = c.Close(ctx)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// fill makes the role, what the proxy asks for a log-in, and pgbench's tables.
func (s *stage) fill(ctx context.Context) error {
	super := "postgres://postgres@" + s.addr() + "/postgres?sslmode=disable"
	if err := ready(ctx, super); err != nil {
		return err
	}
	c, err := pgx.Connect(ctx, super)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	if _, err := c.PgConn().Exec(ctx, `
		create role bench login password '`+s.verifier+`';
		grant all on schema public to bench;
		create role manada_proxy login password 'proxy';
		create schema manada;
		create function manada.user_lookup(name text) returns table(rolname text, rolpassword text)
			language sql stable security definer set search_path = pg_catalog
			as $$ select a.rolname::text, a.rolpassword from pg_catalog.pg_authid a where a.rolname = $1 $$;
		grant usage on schema manada to manada_proxy`).ReadAll(); err != nil {
		return err
	}
	cmd := s.pgbench(s.addr(), "disable", "-i", "-q", "-s", "10")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	return nil
}

// pgbench with the connection in its environment.
func (s *stage) pgbench(addr, sslmode string, args ...string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(addr)
	cmd := s.command(pgBin+"pgbench", args...)
	cmd.Env = []string{"PGHOST=" + host, "PGPORT=" + port, "PGUSER=bench", "PGPASSWORD=" + password, "PGDATABASE=postgres", "PGSSLMODE=" + sslmode, "HOME=" + s.dir}
	return cmd
}
