package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/postgres/pgtest"
	"manada/test/trust"
)

// server is a PostgreSQL as anybody has it, with segments of 1 MB, so that they
// are recycled all the time.
type server struct {
	t    *testing.T
	dir  string
	port int
	bin  string
	cmd  *exec.Cmd
	log  bytes.Buffer
	conn *pgconn.PgConn
}

func plainServer(t *testing.T, bin string) *server {
	s := &server{t: t, dir: filepath.Join(pgtest.Dir(t), "d"), port: pgtest.Port(t), bin: bin}
	t.Cleanup(s.kill)
	return s
}

func (s *server) program(name string, args ...string) {
	s.t.Helper()
	if out, err := exec.Command(filepath.Join(s.bin, name), args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func (s *server) configure(more string) {
	s.t.Helper()
	conf := fmt.Sprintf(`listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%s'
wal_level = logical
wal_buffers = 64kB
shared_buffers = 16MB
autovacuum = off
checkpoint_timeout = 1h
min_wal_size = 12MB
max_wal_size = 16MB
restart_after_crash = off
wal_retrieve_retry_interval = 10ms
fsync = off
%s
`, s.port, filepath.Dir(s.dir), more)
	must(s.t, os.WriteFile(filepath.Join(s.dir, "postgresql.conf"), []byte(conf), 0o600))
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.dir)
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	must(s.t, s.cmd.Start())
	until(s.t, "a session", func() bool {
		c, err := pgconn.Connect(s.t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", s.port))
		s.conn = c
		return err == nil
	})
}

// kill is an immediate stop: nothing that was not written is written any more.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.conn.Close(context.Background())
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *server) lsn(f string) cluster.LSN {
	s.t.Helper()
	r, err := run(s.t.Context(), s.conn, "select coalesce("+f+"(), '0/0')")
	must(s.t, err)
	return lsnOf(r[0][0][0])
}

func (s *server) do(sql string) {
	s.t.Helper()
	_, err := run(s.t.Context(), s.conn, sql)
	must(s.t, err)
}

// look is what a member would find: what is known of replay and of the receiver
// is 0 of a stopped one.
func (s *server) look(received, replayed cluster.LSN) WALTail {
	s.t.Helper()
	i := &Instance{cfg: Config{DataDir: s.dir}}
	c, err := ReadControl(s.dir)
	must(s.t, err)
	w := WALTail{Received: received, Replayed: replayed}
	must(s.t, i.readTail(&c, &w))
	return w
}

// recordsPair is a primary and its standby whose segments were all used before.
type recordsPair struct {
	*testing.T
	a, b *server
}

func newRecordsPair(t *testing.T) *recordsPair {
	bin, err := FindBinDir()
	must(t, err)
	p := &recordsPair{t, plainServer(t, bin), plainServer(t, bin)}
	p.a.program("initdb", "-D", p.a.dir, "-A", "trust", "-U", "postgres", "--wal-segsize=1", "-N")
	p.a.configure("")
	p.a.start()
	p.a.do("select pg_create_physical_replication_slot('b', true)")
	p.b.program("pg_basebackup", "-D", p.b.dir, "-h", "127.0.0.1", "-p", fmt.Sprint(p.a.port), "-U", "postgres", "-c", "fast", "-X", "stream", "--no-sync")
	p.b.configure(fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=postgres'\nprimary_slot_name = 'b'", p.a.port))
	must(t, os.WriteFile(filepath.Join(p.b.dir, "standby.signal"), nil, 0o600))
	p.b.start()
	for range 4 {
		p.write(60000)
		p.recycle()
	}
	files, err := filepath.Glob(filepath.Join(p.b.dir, "pg_wal", "0*"))
	must(t, err)
	now, ahead := cluster.Timeline(1).Segment(p.level(), 1<<20), 0
	for _, f := range files {
		if filepath.Base(f) > now {
			ahead++
		}
	}
	if ahead < 2 {
		t.Fatalf("segments %v, now at %s: nothing was recycled", files, now)
	}
	return p
}

// write makes n records of any size between 40 and 110 bytes and a commit.
func (p *recordsPair) write(n int) {
	p.Helper()
	p.a.do(fmt.Sprintf("select count(pg_logical_emit_message(false, 'm', repeat('y', (random() * 60)::int))) from generate_series(1, %d)", n))
	p.a.do("select pg_logical_emit_message(true, 'm', 'end')")
}

// level waits until the standby has replayed what the primary has, which is
// returned.
func (p *recordsPair) level() cluster.LSN {
	p.Helper()
	var end cluster.LSN
	until(p.T, "the standby is level", func() bool {
		end = p.a.lsn("pg_current_wal_flush_lsn")
		return p.b.lsn("pg_last_wal_replay_lsn") == end
	})
	return end
}

func (p *recordsPair) recycle() {
	p.Helper()
	p.a.do("checkpoint")
	p.level()
	p.b.do("checkpoint")
}

// The end of WAL of a standby, at rest or stopped, is where the primary's was:
// never more than was received, never less than was replayed. What lies behind
// it is made of old records.
func TestTrustEndOfWAL(t *testing.T) {
	p := newRecordsPair(t)
	looks, wrong, again := trust.Runs(500, 10000), 0, 0
	for k := range looks {
		p.write(k % 41)
		if k%100 == 99 {
			p.recycle()
		}
		end := p.level()
		got := p.b.look(p.b.lsn("pg_last_wal_receive_lsn"), p.b.lsn("pg_last_wal_replay_lsn"))
		if p.a.lsn("pg_current_wal_flush_lsn") != end {
			again++ // the primary wrote something of its own meanwhile
		} else if got.End != end || got.Complete != end {
			if wrong++; wrong < 5 {
				t.Errorf("look %d: %+v, received and replayed %s", k, got, end)
			}
		}
		if k%250 == 0 { // stopped, the file tells alone
			p.b.kill()
			got, now := p.b.look(0, 0), p.a.lsn("pg_current_wal_flush_lsn")
			if got.End < end || got.End > now {
				t.Errorf("look %d, stopped: %+v, replayed %s, the primary has %s", k, got, end, now)
			}
			p.b.start()
		}
	}
	t.Logf("%d looks, %d wrong, %d not at rest", looks, wrong, again)
	if wrong > 0 || again > looks/10 {
		t.Fatalf("%d of %d looks wrong, %d not at rest", wrong, looks, again)
	}
}

// A primary dies while it writes a record of many pages, several times: what
// recovery wrote over the abandoned record, and all that follows, is found.
func TestEndOfWALBehindAbandonedRecords(t *testing.T) {
	p := newRecordsPair(t)
	for _, s := range []*server{p.a, p.b} {
		s.do("alter system set wal_keep_size = '500MB'")
		s.do("select pg_reload_conf()")
	}
	p.write(10)
	p.level()
	redo := p.a.lsn("pg_current_wal_flush_lsn") // a record begins here
	for n := range trust.Runs(3, 10) {
		before := p.a.lsn("pg_current_wal_insert_lsn")
		go func(c *pgconn.PgConn) { // its record takes longer than its server lives
			_, _ = run(context.Background(), c, "select pg_logical_emit_message(true, 'long', repeat('x', 200000000))")
		}(p.a.conn)
		until(t, "pages of the record", func() bool {
			return p.written(p.a, before+cluster.LSN(600<<10+n*40<<10))
		})
		p.b.kill()
		torn := p.b.look(0, 0)
		_ = p.a.cmd.Process.Signal(syscall.SIGQUIT)
		_ = p.a.cmd.Wait()
		p.a.start()
		p.write(20)
		p.b.start()
		end := p.level()
		if torn.Complete > end || torn.Complete < before {
			t.Errorf("in mid-record: %+v, the record began at %s", torn, before)
		}
		p.b.kill()
		got := p.b.look(0, 0)
		r, err := newWALReader(p.b.dir, &Control{SegmentSize: 1 << 20, WALBlockSize: 8192})
		must(t, err)
		all, _, err := r.end(redo, 0)
		must(t, err)
		if got.End < end || all < end {
			t.Errorf("behind %d abandoned records: end %s, from %s on %s, replayed %s", n+1, got.End, redo, all, end)
		}
		p.b.start()
	}
}

// written says whether the page that holds at was written.
func (p *recordsPair) written(s *server, at cluster.LSN) bool {
	r, err := newWALReader(s.dir, &Control{SegmentSize: 1 << 20, WALBlockSize: 8192})
	must(p.T, err)
	defer r.close()
	return r.loadPage(1, r.pageOf(at)) == nil
}
