package backup

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/blob"
	"manada/internal/repo"
)

const pgBin = "/usr/lib/postgresql/15/bin/"

// bench is a folder with a repository and clusters that archive into it.
type bench struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	store  *blob.Posix
	stanza string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	if _, err := os.Stat(pgBin + "initdb"); err != nil {
		t.Skip("PostgreSQL 15 is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp(fastDir(), "manada-b*") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := blob.NewPosix(filepath.Join(dir, "repo"), blob.PosixOptions{LockDir: filepath.Join(dir, "lock")})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, ctx: ctx, dir: dir, store: s, stanza: "demo"}
}

// fastDir is a file system in memory where there is one with room: thousands of
// small files are written, and pgbackrest syncs each.
func fastDir() string {
	var st syscall.Statfs_t
	if syscall.Statfs("/dev/shm", &st) == nil && st.Bavail*uint64(st.Bsize) > 4<<30 && syscall.Access("/dev/shm", 2) == nil {
		return "/dev/shm"
	}
	return ""
}

// run runs a program and gives what it prints.
func (b *bench) run(name string, args ...string) string {
	b.t.Helper()
	out, err := b.try(name, args...)
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (b *bench) try(name string, args ...string) (string, error) {
	c := exec.CommandContext(b.ctx, name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	// A background postmaster must not keep the pipe open: pg_ctl gets -l.
	out, err := c.CombinedOutput()
	return string(out), err
}

// walCommandText is this test binary as archive_command or restore_command.
func (b *bench) walCommandText(args string) string {
	exe, _ := os.Executable()
	return fmt.Sprintf("%s=%s:%s %s %s", envWAL, b.store.Root(), b.stanza, exe, args)
}

// cluster is a PostgreSQL that listens on a socket in its folder only.
type pgCluster struct {
	*bench
	data string
	sock string
}

func (b *bench) initdb(name, archiveCommand string) *pgCluster {
	b.t.Helper()
	c := b.at(name)
	b.run(pgBin+"initdb", "-D", c.data, "-k", "-N", "-A", "trust", "-U", "postgres", "--locale=C.UTF-8")
	conf := "listen_addresses = ''\nfsync = off\narchive_mode = on\nmax_wal_senders = 0\nautovacuum = off\nshared_buffers = 16MB\n" +
		"checkpoint_timeout = 1h\nwal_level = replica\nlogging_collector = off\n"
	f, err := os.OpenFile(filepath.Join(c.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	fmt.Fprintf(f, "%sarchive_command = '%s'\n", conf, strings.ReplaceAll(archiveCommand, "'", "''"))
	f.Close()
	return c
}

// at is a cluster that is, or will be, in a folder of that name.
func (b *bench) at(name string) *pgCluster {
	return &pgCluster{bench: b, data: filepath.Join(b.dir, name), sock: filepath.Join(b.dir, "s-"+name)}
}

func (c *pgCluster) start() *pgCluster {
	c.t.Helper()
	if err := os.MkdirAll(c.sock, 0o700); err != nil {
		c.t.Fatal(err)
	}
	log := c.data + ".log"
	c.t.Cleanup(func() { c.kill() })
	out, err := c.try(pgBin+"pg_ctl", "-D", c.data, "-l", log, "-w", "-t", "60", "-o", "-k "+c.sock, "start")
	if err != nil {
		text, _ := os.ReadFile(log)
		c.t.Fatalf("start: %v\n%s\n%s", err, out, text)
	}
	return c
}

func (c *pgCluster) stop() {
	c.t.Helper()
	c.run(pgBin+"pg_ctl", "-D", c.data, "-w", "-m", "fast", "stop")
}

// kill ends what is left at the end of a test.
func (c *pgCluster) kill() {
	b, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		return
	}
	var pid int
	if fmt.Sscan(string(b), &pid); pid > 1 {
		syscall.Kill(pid, syscall.SIGQUIT)
		for range 500 {
			if syscall.Kill(pid, 0) != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // waiting for a process to be gone
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (c *pgCluster) connect(ctx context.Context) (*pgconn.PgConn, error) {
	return pgconn.Connect(ctx, "host="+c.sock+" user=postgres dbname=postgres sslmode=disable")
}

// sql runs statements and gives the last one's first cell.
func (c *pgCluster) sql(text string) string {
	c.t.Helper()
	conn, err := c.connect(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close(c.ctx)
	res, err := conn.Exec(c.ctx, text).ReadAll()
	if err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	if last := res[len(res)-1]; len(last.Rows) > 0 {
		return string(last.Rows[0][0])
	}
	return ""
}

// flush gets all WAL so far into the archive.
func (c *pgCluster) flush() {
	c.t.Helper()
	seg := c.sql("select pg_walfile_name(pg_switch_wal())")
	c.until("the archive has "+seg, func() bool {
		return c.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver") >= seg
	})
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for !ok() {
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("waited in vain until %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// content hashes the rows of the tables.
func (c *pgCluster) content(tables ...string) string {
	c.t.Helper()
	var out []string
	for _, t := range tables {
		out = append(out, t+"="+c.sql("select count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from "+t+" t"))
	}
	return strings.Join(out, " ")
}

func (c *pgCluster) options(t repo.BackupType) Options {
	return Options{Storage: c.store, Stanza: c.stanza, PGData: c.data, Type: t, Connect: c.connect, ArchiveTimeout: 30 * time.Second}
}

func (c *pgCluster) backup(t repo.BackupType) *Result {
	c.t.Helper()
	res, err := Backup(c.ctx, c.options(t))
	if err != nil {
		c.t.Fatal(err)
	}
	return res
}

func (c *pgCluster) stanzaCreate() {
	c.t.Helper()
	id, err := ReadCluster(c.ctx, c.data)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := StanzaCreate(c.ctx, c.store, c.stanza, id, nil); err != nil {
		c.t.Fatal(err)
	}
}

func (b *bench) restoreOptions(c *pgCluster) RestoreOptions {
	return RestoreOptions{Storage: b.store, Stanza: b.stanza, Dir: c.data, RestoreCommand: b.walCommandText(`get %f "%p"`), TargetAction: "promote"}
}

func (b *bench) restore(c *pgCluster, change func(*RestoreOptions)) *RestoreResult {
	b.t.Helper()
	o := b.restoreOptions(c)
	if change != nil {
		change(&o)
	}
	res, err := Restore(b.ctx, o)
	if err != nil {
		b.t.Fatal(err)
	}
	return res
}

// primary waits until recovery has ended.
func (c *pgCluster) primary() *pgCluster {
	c.t.Helper()
	c.until("recovery ends", func() bool { return c.sql("select pg_is_in_recovery()") == "f" })
	return c
}

// random writes a file of the given size that does not compress.
func random(t *testing.T, path string, size int) {
	t.Helper()
	b := make([]byte, size)
	rand.Read(b)
	if err := os.WriteFile(path, b, fs.FileMode(0o600)); err != nil {
		t.Fatal(err)
	}
}
