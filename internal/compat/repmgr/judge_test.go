package repmgr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/health"
	"manada/internal/postgres"
	"manada/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// The judge is Debian's repmgr on two PostgreSQLs of its own. The herd that is
// compared with it has the same names, numbers, ports and state; nothing is
// normalised. (--verbose is not compared: it prints libpq's own words.)
func TestClusterShowAsDebian(t *testing.T) {
	d := newDebian(t)
	d.same("healthy", "master", herd{})
	d.stop("slave")
	d.same("standby down", "master", herd{slave: cluster.PostgresDown})
	d.start("slave")
	d.eventually("the standby streams again", func() bool {
		return d.value("master", "select count(*) from pg_stat_replication where state = 'streaming'") == "1"
	})
	d.stop("master")
	d.same("primary down", "slave", herd{master: cluster.PostgresDown})
	d.same("primary's host gone", "slave", herd{masterGone: true})
	d.repmgr("slave", "standby", "promote")
	d.same("promoted", "slave", herd{master: cluster.PostgresDown, taken: true})
	d.same("promoted, the old host gone", "slave", herd{masterGone: true, taken: true})
	d.start("master")
	d.same("the old primary runs", "slave", herd{taken: true, old: true})
	d.stop("master")
	d.repmgr("master", "node", "rejoin", "--force-rewind", "--config-files=postgresql.conf", "-d", d.conninfo("slave"))
	d.eventually("the old primary streams", func() bool {
		return d.value("slave", "select count(*) from pg_stat_replication where state = 'streaming'") == "1"
	})
	d.checkpointed("master", "2")
	d.same("rejoined", "slave", herd{taken: true, rejoined: true})
	d.value("master", "select pg_promote()")
	d.checkpointed("master", "3")
	d.same("promoted by hand", "slave", herd{taken: true, rejoined: true, byHand: true})
}

func TestNodeStatusAsDebian(t *testing.T) {
	d := newDebian(t)
	d.sameNode("primary", "master", herd{})
	d.sameNode("standby", "slave", herd{})
	d.stop("slave")
	d.sameNode("alone", "master", herd{slave: cluster.PostgresDown})
}

// herd says how Manada's herd differs from a healthy one of master and slave.
type herd struct {
	master, slave cluster.PostgresState
	masterGone    bool
	taken         bool // slave has taken over
	old           bool // the old primary still runs as one
	rejoined      bool
	byHand        bool // somebody promoted the standby behind the agent's back
}

// nodes is the herd as its status tells it.
func (h herd) nodes(d *debian) []*node {
	t := &cluster.Term{Epoch: 1, Leader: "master", Open: true, Durability: cluster.Quorum,
		History: []cluster.Branch{{Epoch: 1, Leader: "master", Timeline: 1}}}
	leader, follower := "master", "slave"
	if h.taken {
		t.Epoch, t.Leader = 2, "slave"
		t.History = append(t.History, cluster.Branch{Epoch: 2, Parent: 1, Leader: "slave", Timeline: 2})
		leader, follower = "slave", "master"
	}
	in := health.Input{Cluster: "x", Self: "slave", Now: time.Now(), Nodes: map[string]health.Seen{}, Term: t, TermRev: 5}
	beats := map[string]*cluster.Beat{}
	for i, name := range []string{"master", "slave"} {
		in.Expected = append(in.Expected, health.Expected{Name: name, Kind: "data", ID: i + 1, Address: d.addr(name)})
		beats[name] = &cluster.Beat{Node: name, Kind: "data", From: "agent", Instance: "i-" + name, Timeline: cluster.Timeline(t.Epoch)}
		in.Nodes[name] = health.Seen{Beat: beats[name]}
	}
	in.Expected = append(in.Expected, health.Expected{Name: "witness", Kind: "witness"})
	l, f := beats[leader], beats[follower]
	l.Postgres, l.Leads = cluster.PostgresPrimary, t.Epoch
	if !h.taken || h.rejoined {
		f.Postgres, f.Certified, f.Streaming = cluster.PostgresStandby, t.Epoch, !h.byHand
	}
	if h.old || h.byHand {
		f.Postgres = cluster.PostgresPrimary
	}
	if h.old {
		f.Timeline, f.Leads = 1, 1
	}
	if h.byHand {
		f.Timeline = 3
	}
	for name, s := range map[string]cluster.PostgresState{"master": h.master, "slave": h.slave} {
		if s != "" {
			beats[name].Postgres, beats[name].Streaming, beats[name].Leads = s, false, 0
		}
	}
	if h.masterGone {
		in.Nodes["master"] = health.Seen{Beat: beats["master"], Age: time.Minute}
	}
	return nodesOf(health.Build(in))
}

// debian is a cluster of two as repmgr makes it.
type debian struct {
	t    *testing.T
	dir  string
	bin  string
	port map[string]int
}

func newDebian(t *testing.T) *debian {
	d := &debian{t: t, dir: pgtest.Dir(t), port: map[string]int{"master": pgtest.Port(t), "slave": pgtest.Port(t)}}
	var err error
	if d.bin, err = postgres.FindBinDir(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.bin, "repmgr")); err != nil {
		t.Fatalf("the judge is not there: apt-get install repmgr postgresql-15-repmgr, or scripts/deps.sh test (%v)", err)
	}
	for id, name := range []string{"master", "slave"} {
		conf := fmt.Sprintf("node_id=%d\nnode_name='%s'\nconninfo='%s'\ndata_directory='%s'\npg_bindir='%s'\npromote_check_interval=1\n",
			id+1, name, d.conninfo(name), filepath.Join(d.dir, name), d.bin)
		if err := os.WriteFile(filepath.Join(d.dir, name+".conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = d.command("pg_ctl", "-D", filepath.Join(d.dir, name), "-m", "immediate", "-w", "stop") // most tests end with one stopped
		})
	}
	d.make()
	return d
}

// make founds the primary, clones the standby and registers both.
func (d *debian) make() {
	master := filepath.Join(d.dir, "master")
	d.must(d.command("initdb", "-D", master, "-A", "trust", "-U", "postgres", "-N"))
	d.append("master", fmt.Sprintf("port=%d\nunix_socket_directories='%s'\nwal_log_hints=on\nhot_standby=on\nwal_keep_size=64MB\nfsync=off\n"+
		"shared_preload_libraries='repmgr'\narchive_mode=on\narchive_command='/bin/true'\nlisten_addresses='127.0.0.1'\n", d.port["master"], d.dir))
	d.start("master")
	d.repmgr("master", "primary", "register")
	d.repmgr("slave", "standby", "clone", "--fast-checkpoint", "-h", "127.0.0.1", "-p", fmt.Sprint(d.port["master"]), "-U", "postgres", "-d", "postgres")
	d.append("slave", fmt.Sprintf("port=%d\n", d.port["slave"]))
	d.start("slave")
	d.eventually("the standby streams", func() bool {
		return d.value("master", "select count(*) from pg_stat_replication where state = 'streaming'") == "1"
	})
	d.repmgr("slave", "standby", "register", "--upstream-node-id=1", "--wait-sync=30")
}

func (d *debian) append(name, text string) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.dir, name, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *debian) addr(name string) string { return fmt.Sprintf("127.0.0.1:%d", d.port[name]) }

func (d *debian) conninfo(name string) string {
	return cluster.NodeStatus{Address: d.addr(name)}.Conninfo()
}

func (d *debian) command(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.t.Context()), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, program), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.WaitDelay = time.Second // a postmaster that was started keeps the pipe
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (d *debian) must(_ string, err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *debian) start(name string) {
	d.t.Helper()
	d.must(d.command("pg_ctl", "-D", filepath.Join(d.dir, name), "-l", filepath.Join(d.dir, name+".log"), "-w", "start"))
}

func (d *debian) stop(name string) {
	d.t.Helper()
	d.must(d.command("pg_ctl", "-D", filepath.Join(d.dir, name), "-m", "fast", "-w", "stop"))
}

func (d *debian) repmgr(name string, args ...string) {
	d.t.Helper()
	extra := []string{"-f", filepath.Join(d.dir, name+".conf")}
	if args[1] == "clone" {
		extra = append(extra, "-D", filepath.Join(d.dir, name))
	}
	d.must(d.command("repmgr", append(args, extra...)...))
}

// value asks a node; "" when it does not answer.
func (d *debian) value(name, sql string) string {
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	c, err := pgconn.Connect(ctx, d.conninfo(name))
	if err != nil {
		return ""
	}
	defer c.Close(ctx)
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil || len(res) == 0 || len(res[0].Rows) == 0 {
		return ""
	}
	return string(res[0].Rows[0][0])
}

func (d *debian) eventually(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// checkpointed waits for a checkpoint on that timeline: repmgr reads it there.
func (d *debian) checkpointed(name, timeline string) {
	d.t.Helper()
	d.value("slave", "checkpoint")
	d.eventually(name+" has a checkpoint on timeline "+timeline, func() bool {
		d.value(name, "checkpoint")
		return d.value(name, "select timeline_id from pg_control_checkpoint()") == timeline
	})
}

// printed is all that a command leaves.
type printed struct {
	Out, Err string
	Code     int
}

// judge runs Debian's repmgr.
func (d *debian) judge(on string, args ...string) printed {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), filepath.Join(d.bin, "repmgr"), append([]string{"-f", filepath.Join(d.dir, on+".conf")}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		d.t.Fatal(err)
	}
	return printed{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

// same compares `cluster show` in its forms.
func (d *debian) same(what, on string, h herd) {
	d.t.Helper()
	for _, flags := range [][]string{{}, {"--csv"}, {"--compact"}, {"--terse"}, {"--compact", "--terse"}, {"--quiet"}} {
		want := d.judge(on, append([]string{"cluster", "show"}, flags...)...)
		l, problems := parseArgs(append([]string{"cluster", "show"}, flags...))
		if len(problems) > 0 {
			d.t.Fatal(problems)
		}
		var out, errw bytes.Buffer
		code := show(&out, &errw, h.nodes(d), l.options)
		if diff := cmp.Diff(want, printed{out.String(), errw.String(), code}); diff != "" {
			d.t.Errorf("%s %v: -Debian +Manada\n%s\nDebian:\n%s%s", what, flags, diff, want.Out, want.Err)
		}
	}
}

// sameNode compares `node status`. What is told of the instance is asked of that
// instance.
func (d *debian) sameNode(what, on string, h herd) {
	d.t.Helper()
	nodes := h.nodes(d)
	var self *node
	for _, n := range nodes {
		if n.name == on {
			self = n
		}
	}
	facts := postgres.Facts{
		Size:        d.value(on, "select pg_size_pretty(sum(pg_database_size(oid))) from pg_database"),
		InRecovery:  d.value(on, "select pg_is_in_recovery()") == "t",
		ArchiveMode: "on", ArchiveCommand: "/bin/true", MaxSenders: 10, MaxSlots: 10,
	}
	facts.Version, _, _ = strings.Cut(d.value(on, "show server_version"), " ")
	if n := d.value(on, "select count(*) from pg_stat_replication"); n == "1" {
		facts.Senders, facts.Attached = 1, []string{"slave"}
	}
	facts.Received, _ = cluster.ParseLSN(d.value(on, "select pg_last_wal_receive_lsn()"))
	facts.Replayed, _ = cluster.ParseLSN(d.value(on, "select pg_last_wal_replay_lsn()"))
	for _, o := range []options{{}, {csv: true}} {
		args := []string{"node", "status"}
		if o.csv {
			args = append(args, "--csv")
		}
		want := d.judge(on, args...)
		var out, errw bytes.Buffer
		code := status(&out, &errw, self, nodes, facts, o)
		got := printed{out.String(), strings.ReplaceAll(errw.String(), `"manada status"`, `"repmgr node check"`), code}
		if diff := cmp.Diff(want, got); diff != "" {
			d.t.Errorf("%s %+v: -Debian +Manada\n%s", what, o, diff)
		}
	}
}
