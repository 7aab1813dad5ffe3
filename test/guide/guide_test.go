package guide

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/test/dockertest"
	"manada/test/measure"
)

// TestGuide is the original's "Guía de Operación", from top to bottom.
func TestGuide(t *testing.T) {
	g := start(t)
	began := time.Now()
	g.step("iniciar el sistema", (*guide).begin)
	g.dsn = got(g.DSN(g.Context()))(g)
	g.must(measure.Prepare(g.Context(), g.dsn))
	load := measure.Start(g.Context(), g.dsn, 0)
	defer load.Stop()
	g.must(load.WaitAcked(g.Context(), 50))

	g.step("verificar estado de replicación", (*guide).replication)
	g.step("ejecutar backups", (*guide).backups)
	g.step("listar backups", (*guide).list)
	g.step("simular failover manual", func(g *guide) { g.failover(load) })
	g.step("backups tras el failover", (*guide).backupsAfter)
	g.step("realizar failback", func(g *guide) { g.failback(load) })
	g.step("restaurar desde backup", func(g *guide) { g.restore(load) })
	load.Stop()
	g.nothingLost(load)
	g.step("restaurar a un punto en el tiempo", func(g *guide) { g.restoreToTime(load) })
	g.step("balanceo de carga", (*guide).balance)
	g.Logf("the whole guide: %.0f s, %d commits acknowledged, 0 lost; errors clients saw: %v", time.Since(began).Seconds(), load.Acked(), load.Errors())
}

func (g *guide) begin() {
	g.types("docker network create postgres_net")
	began := time.Now()
	g.types("docker-compose up -d")
	s := got(g.WaitWhole(g.Context(), 60*time.Second))(g)
	g.Logf("whole and synchronous %.1f s after docker-compose up -d", time.Since(began).Seconds())
	if s.Primary != "master-1" || s.Sync[0] != "slave-2" {
		g.Fatalf("primary %s, sync %v", s.Primary, s.Sync)
	}
	g.healthy(60 * time.Second)
	out := g.types("docker exec -it pgpool manada uri", "postgresql://replica:", fmt.Sprintf("@127.0.0.1:%d/app_db", g.Port(5431)))
	if got := got(dockertest.Query(g.Context(), strings.TrimSpace(out), "select current_database()"))(g); got != "app_db" {
		g.Fatalf("the printed string leads to %q", got)
	}
}

// healthy waits until Docker's own health checks say so.
func (g *guide) healthy(within time.Duration) {
	g.Helper()
	for end := time.Now().Add(within); ; time.Sleep(200 * time.Millisecond) {
		out := got(g.Type(g.Context(), "docker ps --format '{{.Names}} {{.Status}}'"))(g)
		if strings.Count(out, "(healthy)") == len(dockertest.Containers) {
			return
		}
		if time.Now().After(end) {
			g.Fatalf("not healthy within %s:\n%s", within, out)
		}
	}
}

// leads says whether a line of `repmgr cluster show` has the node as the running
// primary, or as a running standby.
func leads(out, node, role, status string) bool {
	for _, line := range strings.Split(out, "\n") {
		f := strings.Split(line, "|")
		if len(f) > 4 && strings.TrimSpace(f[1]) == node {
			return strings.TrimSpace(f[2]) == role && strings.TrimSpace(f[3]) == status
		}
	}
	return false
}

func (g *guide) replication() {
	out := g.types("docker exec -it master repmgr cluster show")
	if !leads(out, "master-1", "primary", "* running") || !leads(out, "slave-2", "standby", "running") {
		g.Fatalf("repmgr cluster show:\n%s", out)
	}
	out = g.types(`docker exec -it master psql -U postgres -c "SELECT * FROM pg_stat_replication;"`, "(1 row)", "streaming", "slave-2")
	if !regexp.MustCompile(`\| (sync|quorum) `).MatchString(out) {
		g.Fatalf("the standby is not synchronous:\n%s", out)
	}
}

// backups takes the three kinds, each after a change to one of eight tables, so
// that their figures say something: docs/es/guia-de-operacion.md quotes them.
func (g *guide) backups() {
	ctx := g.Context()
	for n := range 8 {
		got(dockertest.Query(ctx, g.dsn, fmt.Sprintf("create table data_%d as select i as id, md5(i::text) as a, repeat(md5((i %% 1000)::text), 4) as b from generate_series(1, 50000) i", n)))(g)
	}
	for n, kind := range []string{"full", "incr", "diff"} {
		got(dockertest.Query(ctx, g.dsn, fmt.Sprintf("update data_%d set a = md5(a) where id <= 5000", n)))(g)
		g.types("docker exec -it pgbackrest /scripts/backup_" + kind + ".sh")
	}
	g.types("docker exec -it pgbackrest /scripts/setup_stanza.sh")
	g.types("docker exec -it pgbackrest /scripts/setup_stanza.sh")
}

func (g *guide) list() {
	g.types("docker exec -it pgbackrest pgbackrest info", "stanza: demo", "status: ok", "full backup:", "incr backup:", "diff backup:")
}

func (g *guide) failover(load *measure.Writer) {
	before := time.Now()
	g.types("docker stop master")
	g.must(load.WaitAcked(g.Context(), 100))
	out, err := g.Type(g.Context(), "docker exec -it slave repmgr cluster show")
	if !leads(out, "slave-2", "primary", "* running") {
		g.Fatalf("repmgr cluster show after docker stop master (%v):\n%s", err, out)
	}
	// repmgr itself exits with 25 here: the other node does not run.
	if err == nil || !strings.Contains(err.Error(), "exit status 25") {
		g.Fatalf("repmgr cluster show with a node down ends with %v", err)
	}
	g.Logf("$ docker exec -it slave repmgr cluster show\n%s", out)
	g.Logf("longest interval between two commits over docker stop master: %d ms", load.Outage(before).Milliseconds())
}

func (g *guide) backupsAfter() {
	g.types("docker exec -it pgbackrest /scripts/backup_full.sh")
	g.types("docker exec -it pgbackrest /scripts/backup_incr.sh")
	g.types("docker exec -it pgbackrest pgbackrest info", "status: ok")
	g.archiveWithoutGap()
}

func (g *guide) failback(load *measure.Writer) {
	before := time.Now()
	g.types("bash ./failback.sh")
	got(g.Wait(g.Context(), "master-1 to lead synchronously", 60*time.Second, func(s cluster.Status) bool {
		return dockertest.Whole(s) && s.Primary == "master-1"
	}))(g)
	g.must(load.WaitAcked(g.Context(), 100))
	g.Logf("longest interval between two commits over failback.sh: %d ms", load.Outage(before).Milliseconds())
	g.nothingLost(load)
}

func (g *guide) restore(load *measure.Writer) {
	before := time.Now()
	g.types("docker exec -it pgbackrest /scripts/restore.sh")
	got(g.WaitWhole(g.Context(), 60*time.Second))(g)
	g.must(load.WaitAcked(g.Context(), 100))
	g.Logf("longest interval between two commits over restore.sh: %d ms", load.Outage(before).Milliseconds())
}

// restoreToTime: what was written after the target is gone on both nodes, what
// was written before is there.
func (g *guide) restoreToTime(load *measure.Writer) {
	ctx := g.Context()
	kept := g.writes(load.Next(), 100)
	target := got(dockertest.Query(ctx, g.dsn, "begin; select clock_timestamp(); commit"))(g)
	g.until("the clock to pass the target", func() bool {
		v, err := dockertest.Query(ctx, g.dsn, "begin; select clock_timestamp() > '"+target+"'::timestamptz + interval '1 s'; commit")
		return err == nil && v == "t"
	})
	undone := g.writes(kept.Next(), 100)
	out, err := g.TypeWith(ctx, "docker exec -it pgbackrest /scripts/restore.sh --type=time --target='"+target+"'", "herd")
	g.must(err)
	g.Logf("$ restore.sh --type=time --target='%s'\n%s", target, out)
	got(g.WaitWhole(ctx, 60*time.Second))(g)
	g.nothingLost(load)
	g.nothingLost(kept)
	for _, c := range []string{"master", "slave"} {
		n := got(g.Value(ctx, c, fmt.Sprintf("select count(*) from %s where id > %d", measure.Table, kept.Next())))(g)
		if n != "0" {
			g.Errorf("%s of the %d rows after the target are still on %s", n, undone.Acked(), c)
		}
	}
}

// writes acknowledges at least n rows and stops.
func (g *guide) writes(first int64, n int) *measure.Writer {
	g.Helper()
	w := measure.Start(g.Context(), g.dsn, first)
	defer w.Stop()
	g.must(w.WaitAcked(g.Context(), n))
	return w
}

func (g *guide) until(what string, ok func() bool) {
	g.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			g.Fatalf("wait for %s: not within 30 s", what)
		}
	}
}

// nothingLost looks for every acknowledged row on both nodes.
func (g *guide) nothingLost(w *measure.Writer) {
	g.Helper()
	ids := w.Acknowledged() // before the node catches up: the writer may go on
	for _, c := range []string{"master", "slave"} {
		g.must(g.WaitCaughtUp(g.Context(), c))
		dsn := got(g.NodeDSN(g.Context(), c))(g)
		lost := got(measure.Missing(g.Context(), dsn, ids))(g)
		if len(lost) > 0 {
			g.Fatalf("%d of %d acknowledged rows are missing on %s: %v", len(lost), len(ids), c, lost[:min(10, len(lost))])
		}
	}
}
