package guide

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/test/dockertest"
)

// TestComesBack: without the network made before, in any order, after down and
// up, kill -9 and the loss of any one volume `up -d` ends in a whole herd.
func TestComesBack(t *testing.T) {
	g := start(t)
	g.step("any start order", func(g *guide) {
		// The founder last, and one service at a time.
		for _, s := range []string{"pgbackrest", "pgpool", "postgresql-slave", "postgresql-master"} {
			g.types("docker-compose up -d --no-deps " + s)
		}
		g.whole(60 * time.Second)
	})
	g.marked()
	g.step("down and up", func(g *guide) {
		g.types("docker-compose down")
		g.types("docker-compose up -d")
		g.whole(60 * time.Second)
	})
	for _, c := range dockertest.Containers {
		g.step("kill -9 "+c, func(g *guide) {
			pid := strings.TrimSpace(g.types("docker inspect -f '{{.State.Pid}}' " + c))
			g.types("kill -9 " + pid)
			g.until("the engine to start it again", func() bool {
				out, err := g.Type(g.Context(), "docker inspect -f '{{.State.Running}} {{.State.Pid}}' "+c)
				return err == nil && strings.HasPrefix(out, "true") && strings.TrimSpace(out) != "true "+pid
			})
			g.whole(60 * time.Second)
		})
	}
	for _, lost := range [][2]string{
		{"postgresql-slave", "postgresql_slave_data"}, {"postgresql-master", "postgresql_master_data"},
		{"pgbackrest", "pgbackrest_data"}, {"pgpool", "pgpool_data"},
	} {
		g.step("volume "+lost[1]+" lost while the others run", func(g *guide) {
			g.types("docker-compose rm -sf " + lost[0])
			g.lose(lost[1])
			g.types("docker-compose up -d")
			g.whole(60 * time.Second)
		})
	}
	for _, lost := range [][2]string{
		{"postgresql_master_data", "master-1"}, {"postgresql_master_data", "slave-2"}, {"postgresql_slave_data", "master-1"},
		{"postgresql_slave_data", "slave-2"}, {"pgbackrest_data", "slave-2"}, {"manada_secrets", "slave-2"},
	} {
		g.step("volume "+lost[0]+" lost while all is down, "+lost[1]+" led", func(g *guide) {
			g.lead(lost[1])
			g.types("docker-compose down")
			g.lose(lost[0])
			g.types("docker-compose up -d")
			g.whole(60 * time.Second)
		})
	}
	g.step("repository lost", (*guide).repositoryLost)
	g.step("an edit takes effect at the next restart", (*guide).edit)
	g.step("locales", func(g *guide) {
		g.types("docker exec -it master locale -a", "C.utf8", "en_US.utf8", "es_GT.utf8")
	})
}

func (g *guide) marked() {
	g.Helper()
	g.dsn = got(g.DSN(g.Context()))(g)
	got(dockertest.Query(g.Context(), g.dsn, "create table mark (i int); insert into mark values (42)"))(g)
}

// whole waits for a complete herd that still has what was written, through the
// proxy.
func (g *guide) whole(within time.Duration) {
	g.Helper()
	began := time.Now()
	s := got(g.WaitWhole(g.Context(), within))(g)
	g.Logf("whole after %.1f s; %s leads", time.Since(began).Seconds(), s.Primary)
	if g.dsn == "" {
		return
	}
	g.until("the proxy to answer", func() bool {
		v, err := dockertest.Query(g.Context(), g.dsn, "select i from mark")
		return err == nil && v == "42"
	})
}

// lead makes a node the primary.
func (g *guide) lead(node string) {
	g.Helper()
	s := got(g.WaitWhole(g.Context(), 60*time.Second))(g)
	if s.Primary != node {
		g.types("docker exec pgbackrest manada switchover " + node)
		g.whole(60 * time.Second)
	}
}

// lose removes a volume of this project.
func (g *guide) lose(volume string) {
	g.Helper()
	g.types("docker volume rm " + filepath.Base(g.Dir) + "_" + volume)
}

// repositoryLost: a repository that had backups and is empty is told, and nothing
// is begun anew in it, until somebody says that it was removed on purpose; then
// the stanza is made again by itself, and a backup succeeds.
func (g *guide) repositoryLost() {
	g.types("docker exec pgbackrest bash -c 'rm -rf /var/lib/pgbackrest/*'")
	g.until("word of what is gone", func() bool {
		g.switchWAL()
		out, _ := g.Exec(g.Context(), "master", "manada", "status", "-o", "json")
		return strings.Contains(out, `"M-B13"`) && strings.Contains(out, "it is not begun anew")
	})
	info := filepath.Join(g.Dir, "pgbackrest_repo/archive/demo/archive.info")
	if _, err := os.Stat(info); err == nil {
		g.Error("an archive was begun anew in an emptied repository")
	}
	g.types("docker exec pgbackrest rm /bitnami/postgresql/state/repository.json")
	g.until("the stanza to be there again", func() bool {
		g.switchWAL()
		_, err := os.Stat(info)
		return err == nil
	})
	g.types("docker exec -it pgbackrest /scripts/backup_full.sh")
}

// switchWAL gives the primary a segment to archive.
func (g *guide) switchWAL() {
	g.Helper()
	got(dockertest.Query(g.Context(), g.dsn, "insert into mark select 43 where false; create table if not exists noise (i int); insert into noise values (1)"))(g)
	for _, c := range []string{"master", "slave"} {
		_, _ = g.Value(g.Context(), c, "select pg_switch_wal() where not pg_is_in_recovery()")
	}
}

// edit: parameters of one node and rules of both take effect, what Manada owns
// is refused by name.
func (g *guide) edit() {
	append := func(file, text string) {
		f, err := os.OpenFile(filepath.Join(g.Dir, file), os.O_APPEND|os.O_WRONLY, 0)
		g.must(err)
		_, err = f.WriteString(text)
		g.must(err)
		g.must(f.Close())
	}
	append("configs/master/postgresql.conf", "work_mem = 17MB\nsynchronous_standby_names = ''\n")
	append("configs/common/pg_hba.conf", "host all all 0.0.0.0/0 trust\n")
	rules := filepath.Join(g.Dir, "configs/common/pg_hba.conf")
	text := got(os.ReadFile(rules))(g)
	g.must(os.WriteFile(rules, slices.Concat([]byte("host all intruder 0.0.0.0/0 reject\n"), text), 0o644)) // the first match decides
	append("configs/slave/repmgr.conf", "location='attic'\n")
	g.types("docker-compose restart")
	g.whole(90 * time.Second)
	g.intruder()
	for node, want := range map[string]string{"master": "17MB", "slave": "8MB"} {
		if v := got(g.Value(g.Context(), node, "show work_mem"))(g); v != want {
			g.Errorf("work_mem on %s is %s, want %s", node, v, want)
		}
		if v := got(g.Value(g.Context(), node, "select count(*) from pg_hba_file_rules where 'intruder' = any (user_name) and auth_method = 'reject'"))(g); v != "1" {
			g.Errorf("the rule is not in force on %s (%s)", node, v)
		}
		out, err := exec.CommandContext(g.Context(), "docker", "logs", node).CombinedOutput()
		g.must(err)
		if !strings.Contains(string(out), "pg_hba.conf") || !strings.Contains(string(out), "without a password") {
			g.Errorf("the log of %s does not name the refused rule", node)
		}
		if node == "master" && !strings.Contains(string(out), "synchronous_standby_names") {
			g.Error("the log of master does not name the refused parameter")
		}
	}
}

// intruder: the proxy holds the rules against its clients, too, whose addresses
// PostgreSQL does not see.
func (g *guide) intruder() {
	g.Helper()
	c := got(pgconn.ParseConfig(g.dsn))(g)
	c.User, c.Password = "intruder", "whatever"
	conn, err := pgconn.ConnectConfig(g.Context(), c)
	if err == nil {
		conn.Close(g.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "pg_hba.conf rejects connection") {
		g.Errorf("the proxy says to a client that a rule rejects: %v", err)
	}
}
