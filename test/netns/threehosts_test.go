package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/test/measure"
)

// limit is for everything; it takes about two minutes.
const limit = 4 * time.Minute

// TestTrustThreeHosts types the walk-through of the README on three hosts, and then
// does to them what networks do.
func TestTrustThreeHosts(t *testing.T) {
	steps := readWalkThrough(t)
	if !inSandbox(t, limit) {
		return
	}
	start := time.Now()
	l := threeHosts(t, steps)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"only TLS from outside", l.onlyTLS},
		{"the socket of the own host", l.ownSocket},
		{"tablespaces", l.tablespaces},
		{"wrong and used tokens", l.badTokens},
		{"the primary's host is unplugged", l.primaryUnplugged},
		{"the standby's host is unplugged", l.standbyUnplugged},
		{"primary and standby lose each other", l.cutApart},
		{"clients while the primary is killed", l.killedUnderClients},
		{"a host that lost its disk", l.diskLost},
		{"one primary", func(t *testing.T) { l.onePrimary(t, 1) }},
		{"stopped", l.stopAll},
	} {
		t.Run(part.name, part.run)
		t.Logf("%5.1fs %s", time.Since(start).Seconds(), part.name)
		if t.Failed() {
			return
		}
	}
}

// threeHosts is the herd of the walk-through, made by typing it.
func threeHosts(t *testing.T, steps []step) *lab {
	t.Helper()
	start := time.Now()
	l := newLab(t)
	l.standIns()
	l.buildProgram()
	for name, addr := range map[string]string{"db1": "10.0.0.11", "db2": "10.0.0.12", "witness": "10.0.0.13"} {
		l.boot(name, addr)
	}
	l.knowNames()
	t.Cleanup(func() { l.tellIfFailed() })
	t.Logf("%5.1fs hosts are up", time.Since(start).Seconds())
	for _, s := range steps {
		l.follow(s)
		t.Logf("%5.1fs README.md:%d on %s", time.Since(start).Seconds(), s.line, strings.Join(s.hosts, ", "))
	}
	for h := range l.hosts {
		l.healthy(h)
	}
	return l
}

// follow types a step where it says.
func (l *lab) follow(s step) {
	l.t.Helper()
	for _, h := range s.hosts {
		var out string
		var err error
		if m := l.hosts[h]; m != nil {
			out, err = m.run(s.script)
		} else {
			out, err = l.here(h, s.script)
		}
		if err != nil {
			l.t.Fatalf("README.md:%d on %s: %v\n%s\n%s", s.line, h, err, s.script, out)
		}
		if strings.Contains(s.script, "manada status") {
			l.t.Logf("on %s:\n%s", h, out)
			l.await(h, 30*time.Second, "a synchronous herd", synchronous) // as the text says: after a few seconds
		}
	}
}

// healthy waits until a host says that the herd is.
func (l *lab) healthy(host string) cluster.Status {
	l.t.Helper()
	return l.await(host, 30*time.Second, "the herd to be healthy", func(s cluster.Status) bool {
		if s.Health != cluster.HealthOK || !synchronous(s) {
			return false
		}
		_, err := l.hosts[host].run("manada status --check") // hosts hear of a backup one after the other
		return err == nil
	})
}

// synchronous: commits wait for the standby, and every host has its vote.
func synchronous(s cluster.Status) bool {
	return s.Primary != "" && s.K == 1 && len(s.Sync) == 1 && s.Store != nil && s.Store.Up == 3
}

// await asks a host for the status until it is what is wanted.
func (l *lab) await(host string, within time.Duration, what string, ok func(cluster.Status) bool) cluster.Status {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), within)
	defer cancel()
	last := ""
	for {
		var s cluster.Status
		out, err := output(l.hosts[host].command(ctx, "manada status -o json 2>/dev/null"))
		if json.Unmarshal([]byte(out), &s) == nil {
			last = out
			if ok(s) {
				return s
			}
		}
		select {
		case <-ctx.Done():
			l.t.Fatalf("%s waits for %s: %v\nlast status: %s", host, what, err, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// dsn is the application's connection string through the proxies of these hosts.
func (l *lab) dsn(port int, hosts ...string) string {
	return fmt.Sprintf("host=%s port=%d dbname=app user=app password='change me' sslmode=verify-full sslrootcert=%s connect_timeout=3",
		strings.Join(hosts, ","), port, filepath.Join(l.root, "app", "manada-ca.crt"))
}

// ownSocket: a proxy comes to the PostgreSQL of its own host over the socket, and to that
// of another over TLS, with the same password from everybody.
func (l *lab) ownSocket(t *testing.T) {
	primary := l.healthy("witness").Primary
	for _, c := range []struct {
		port int
		via  string
		want string // "socket", or "TLS" and the certificate that is shown
	}{
		{5431, primary, "socket"},
		{5431, other(primary), "TLS " + other(primary)},
		{5430, other(primary), "socket"},
		{5430, primary, "TLS " + primary},
	} {
		v, err := value(t.Context(), l.dsn(c.port, c.via), `select case when client_addr is null then 'socket' else 'TLS ' || substring(client_dn from 'CN=([a-z0-9-]+)') end
  from pg_stat_activity join pg_stat_ssl using (pid) where pid = pg_backend_pid()`)
		check(t, err)
		if v != c.want {
			t.Errorf("through %s on port %d: %s, want %s", c.via, c.port, v, c.want)
		}
		if _, err := value(t.Context(), strings.Replace(l.dsn(c.port, c.via), "change me", "wrong", 1), "select 1"); err == nil || !strings.Contains(err.Error(), "28P01") {
			t.Errorf("through %s on port %d with a wrong password: %v", c.via, c.port, err)
		}
	}
}

// other is the database host that is not this one.
func other(node string) string {
	if node == "db1" {
		return "db2"
	}
	return "db1"
}

// write starts writers that go through the proxy of a host.
func (l *lab) write(t *testing.T, through string) *measure.Writer {
	t.Helper()
	check(t, measure.Prepare(t.Context(), l.dsn(5431, through)))
	w := measure.Start(t.Context(), l.dsn(5431, through), 0)
	t.Cleanup(w.Stop)
	l.acked(t, w, 200)
	return w
}

func (l *lab) acked(t *testing.T, w *measure.Writer, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	check(t, w.WaitAcked(ctx, n))
}

// nothingLost compares what was acknowledged with both nodes.
func (l *lab) nothingLost(t *testing.T, w *measure.Writer) {
	t.Helper()
	l.healthy("witness")
	l.caughtUp(t)
	for what, dsn := range map[string]string{"primary": l.dsn(5431, "db1", "db2"), "standby": l.dsn(5430, "db1", "db2")} {
		lost, err := w.Lost(t.Context(), dsn)
		check(t, err)
		if len(lost) > 0 {
			t.Errorf("%d of %d acknowledged commits are missing on the %s, the first is %d", len(lost), w.Acked(), what, lost[0])
		}
	}
}

// caughtUp waits until the standby has replayed what the primary has now.
func (l *lab) caughtUp(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	end, err := value(ctx, l.dsn(5431, "db1", "db2"), "select pg_current_wal_lsn()")
	check(t, err)
	for {
		v, err := value(ctx, l.dsn(5430, "db1", "db2"), "select pg_last_wal_replay_lsn() >= '"+end+"'")
		if err == nil && v == "t" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("wait for the standby to catch up: %q %v", v, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func value(ctx context.Context, dsn, sql string) (string, error) {
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil || len(res) == 0 || len(res[0].Rows) == 0 {
		return "", err
	}
	return string(res[0].Rows[0][0]), nil
}

// primaryUnplugged: the cable of the primary's host is pulled under load. Writers
// go through the other host's proxy; one more writes on the primary itself.
func (l *lab) primaryUnplugged(t *testing.T) {
	old := l.healthy("witness").Primary
	standby := other(old)
	w := l.write(t, standby)
	local := l.writeOn(t, old)
	pulled := time.Now()
	l.hosts[old].link("down")
	s := l.await(standby, 20*time.Second, "a takeover", func(s cluster.Status) bool { return s.Primary == standby })
	l.acked(t, w, 200)
	over := time.Now() // the new side acknowledges
	// Long enough for anything that the old side might still try.
	l.await("witness", 5*time.Second, "the old side to be missed", func(s cluster.Status) bool {
		return s.Health == cluster.HealthDegraded && time.Since(over) > 3*time.Second
	})
	if st, err := l.hosts[old].run("manada status -o json"); err == nil && strings.Contains(st, `"health":"ok"`) {
		t.Errorf("the host that is cut off calls the herd healthy: %s", st)
	}
	plugged := time.Now()
	l.hosts[old].link("up")
	l.await(standby, 60*time.Second, "the old primary to be back", func(s cluster.Status) bool { return slices.Contains(s.Sync, old) })
	back := time.Since(plugged)
	w.Stop()
	last, n := local.stop()
	if last.After(over) {
		t.Errorf("%s acknowledged a commit %s after %s did", old, last.Sub(over), standby)
	}
	l.nothingLost(t, w)
	local.nothingLost(t, l.dsn(5431, standby))
	t.Logf("epoch %d; outage %s; acknowledged %d, and %d on %s itself, the last %s after the cable was pulled; back %s after it was plugged in; client errors %v",
		s.Epoch, w.Outage(pulled).Round(time.Millisecond), w.Acked(), n, old, last.Sub(pulled).Round(time.Millisecond), back.Round(time.Millisecond), w.Errors())
}

// standbyUnplugged: writes go on without it, and are synchronous again later.
func (l *lab) standbyUnplugged(t *testing.T) {
	primary := l.healthy("witness").Primary
	standby := other(primary)
	w := l.write(t, primary)
	pulled := time.Now()
	l.hosts[standby].link("down")
	s := l.await("witness", 20*time.Second, "the primary to go on alone", func(s cluster.Status) bool { return s.Primary == primary && s.K == 0 })
	l.acked(t, w, 200)
	gap := w.Outage(pulled)
	plugged := time.Now()
	l.hosts[standby].link("up")
	l.await(primary, 60*time.Second, "commits to be synchronous again", func(s cluster.Status) bool {
		return s.Primary == primary && s.K == 1 && slices.Contains(s.Sync, standby)
	})
	back := time.Since(plugged)
	l.acked(t, w, 200)
	w.Stop()
	l.nothingLost(t, w)
	t.Logf("epoch %d; longest gap %s; synchronous again %s after it was plugged in; acknowledged %d; client errors %v",
		s.Epoch, gap.Round(time.Millisecond), back.Round(time.Millisecond), w.Acked(), w.Errors())
}

// badTokens: a guest on the witness's machine tries to become a proxy, and gets
// nowhere before it has an address of its own.
func (l *lab) badTokens(t *testing.T) {
	m := l.hosts["witness"]
	address := "10.0.0.13"
	join := func(node, token string) (string, error) {
		check(t, os.WriteFile(m.file("/root/"+node+".yaml"), fmt.Appendf(nil,
			"cluster: orders\nnode: %s\nlisten: %s\nroles: [proxy]\ndata_dir: /var/lib/%s\n", node, address, node), 0o644))
		check(t, os.WriteFile(m.file("/root/token"), []byte(token+"\n"), 0o600))
		return m.run("manada join db1:7400 -c " + node + ".yaml --token-file token")
	}
	refused := func(node, token string, words ...string) {
		t.Helper()
		out, err := join(node, token)
		if err == nil {
			t.Fatalf("%s joined", node)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("%s is not told %q: %s", node, w, out)
			}
		}
		if strings.Contains(out, token) {
			t.Errorf("the token is shown: %s", out)
		}
	}
	invented, _ := pki.NewToken(time.Now())
	refused("guest", invented, "not one of this herd", "manada node token")
	refused("guest", "mt1.half", "not whole")
	token := strings.TrimSpace(l.hosts["db2"].must("manada node token 2>/dev/null"))
	refused("guest", token, "does not take this host", "10.0.0.13 is a name or an address of witness")
	link := strings.TrimSpace(m.must("ip -o -4 address show to 10.0.0.13 | awk '{ print $2 }'"))
	own := func(a string) {
		address = a
		m.must("ip address add " + a + "/24 dev " + link)
	}
	own("10.0.0.19")
	refused("db2", token, "does not take this host", "db2", "manada node remove")
	if out, err := join("guest", token); err != nil { // refusals cost no token
		t.Fatalf("a good token: %v\n%s", err, out)
	}
	own("10.0.0.20")
	refused("second", token, "was used already", "guest", "manada node token")
}

// diskLost: what the last paragraph of the walk-through says.
func (l *lab) diskLost(t *testing.T) {
	primary := l.healthy("witness").Primary
	lost := other(primary)
	m := l.hosts[lost]
	m.must("systemctl stop manada; mv /var/lib/manada /var/lib/the-old-disk")
	l.await(primary, 20*time.Second, "the primary to go on alone", func(s cluster.Status) bool { return s.Primary == primary && s.K == 0 })
	token := l.hosts[primary].must("manada node token 2>/dev/null")
	check(t, os.WriteFile(m.file("/root/token"), []byte(token), 0o600))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		// First it is told that a host of its name answers, then that it is down.
		out, err := m.run("manada join " + primary + " --token-file token")
		if err == nil || time.Now().After(deadline) {
			t.Fatalf("%s was taken in while it was registered, or is not told what to do: %v\n%s", lost, err, out)
		}
		if strings.Contains(out, "type on a member: manada node remove "+lost) {
			break
		}
	}
	l.hosts[primary].must("manada node remove --yes " + lost)
	// A removal makes tokens worthless that were made before it, too: the removed
	// host could have made some for itself.
	if out, err := m.run("manada join " + primary + " --token-file token"); err == nil || !strings.Contains(out, "not one of this herd") {
		t.Errorf("an older token: %v\n%s", err, out)
	}
	token = l.hosts[primary].must("manada node token 2>/dev/null")
	check(t, os.WriteFile(m.file("/root/token"), []byte(token), 0o600))
	began := time.Now()
	m.must("manada join " + primary + " --token-file token; systemctl enable --now manada")
	for _, h := range []string{"db1", "db2", "witness"} {
		l.healthy(h)
	}
	t.Logf("%s is back with a new disk after %s", lost, time.Since(began).Round(time.Millisecond))
}

// stopAll: every host stops in order, and nothing of it is left.
func (l *lab) stopAll(t *testing.T) {
	primary := l.healthy("witness").Primary
	for _, h := range []string{primary, other(primary), "witness"} {
		began := time.Now()
		l.hosts[h].must("systemctl stop manada")
		log, err := os.ReadFile(l.hosts[h].file("/run/units/manada.log"))
		check(t, err)
		if strings.Contains(string(log), "killing what is left") || strings.Contains(string(log), "did not stop in time") {
			t.Errorf("%s did not stop by itself:\n%s", h, log)
		}
		if out := l.hosts[h].must("ls /proc | grep -c '^[0-9]' || true; pgrep -l 'manada|postgres' || true"); strings.Contains(out, "manada") || strings.Contains(out, "postgres") {
			t.Errorf("left on %s: %s", h, out)
		}
		t.Logf("%s stopped in %s", h, time.Since(began).Round(time.Millisecond))
	}
}

// tellIfFailed shows what the hosts have to say.
func (l *lab) tellIfFailed() {
	if !l.t.Failed() {
		return
	}
	for name, m := range l.hosts {
		logs, _ := filepath.Glob(m.file("/var/lib/manada/log/*.log"))
		old, _ := filepath.Glob(m.file("/var/lib/the-old-disk/log/*.log"))
		logs = append(old, logs...)
		for _, f := range append(logs, m.file("/run/units/manada.log")) {
			b, _ := os.ReadFile(f)
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			l.t.Logf("%s %s:\n%s", name, filepath.Base(f), strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	}
}
