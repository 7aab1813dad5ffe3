package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"manada/internal/config"
)

var seedMaster = []string{
	"POSTGRESQL_POSTGRES_PASSWORD=postgres", "POSTGRESQL_USERNAME=replica", "POSTGRESQL_PASSWORD=replica_pass",
	"POSTGRESQL_DATABASE=app_db", "REPMGR_PASSWORD=replica_pass", "REPMGR_PRIMARY_HOST=postgresql-master",
	"REPMGR_PARTNER_NODES=postgresql-master,postgresql-slave", "REPMGR_NODE_NAME=master-1",
	"REPMGR_NODE_NETWORK_NAME=postgresql-master", "REPMGR_NODE_ID=1", "REPMGR_PORT_NUMBER=5432", "REPMGR_USERNAME=replica",
}

// TestSeedEnvironment: the four services of the original compose file, as they are.
func TestSeedEnvironment(t *testing.T) {
	for _, c := range []struct {
		name, node, advertise, roles, partners, secret string
		founds                                         bool
		env                                            []string
	}{
		{"master", "master-1", "postgresql-master", "database store", "postgresql-slave:7400", "replica_pass", true, seedMaster},
		{"pgpool", "pgpool", "pgpool", "proxy", "postgresql-master:7400 postgresql-slave:7400", "replica_pass", false, []string{
			"PGPOOL_SR_CHECK_USER=replica", "PGPOOL_SR_CHECK_PASSWORD=replica_pass", "PGPOOL_POSTGRES_USERNAME=postgres",
			"PGPOOL_POSTGRES_PASSWORD=postgres", "PGPOOL_ADMIN_USERNAME=admin", "PGPOOL_ADMIN_PASSWORD=adminpass",
			"PGPOOL_BACKEND_NODES=0:postgresql-master:5432,1:postgresql-slave:5432", "PGPOOL_ENABLE_LOAD_BALANCING=yes"}},
		{"pgbackrest", "pgbackrest", "pgbackrest", "store repository", "postgresql-master:7400", "replica_pass", false, []string{
			"MANADA_ROLES=store,repository", "PGPASSWORD=replica_pass", "PGHOST=postgresql-master", "PGPORT=5432"}},
	} {
		h, errs := Read(c.env, "0123456789ab")
		if len(errs) > 0 {
			t.Errorf("%s: %v", c.name, errs)
			continue
		}
		if h.Node != c.node || h.Advertise != c.advertise || strings.Join(h.Roles, " ") != c.roles || h.Founds() != c.founds ||
			strings.Join(h.Partners, " ") != c.partners || h.JoinSecret != c.secret {
			t.Errorf("%s: %+v", c.name, h)
		}
		for _, n := range h.Notes {
			if strings.Contains(n, "adminpass") || strings.Contains(n, "replica_pass") {
				t.Errorf("%s: a password in a note: %s", c.name, n)
			}
		}
	}
	h, _ := Read(seedMaster, "")
	if h.App != (App{User: "replica", Password: "replica_pass", Database: "app_db"}) || h.Superuser != "postgres" || h.Port != 5432 {
		t.Errorf("%+v", h)
	}
}

func TestEnvironmentMistakes(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(secret, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(more ...string) []string { return append(slices.Clone(seedMaster), more...) }
	for _, c := range []struct {
		name, want string // part of the only error, empty: none
		env        []string
	}{
		{"nothing", "MANADA_ROLES", nil},
		{"node name", "REPMGR_NODE_NAME", with("REPMGR_NODE_NAME=Master_1")},
		{"port", "REPMGR_PORT_NUMBER", with("REPMGR_PORT_NUMBER=many")},
		{"no founder", "REPMGR_PRIMARY_HOST", with("REPMGR_PRIMARY_HOST=")},
		{"file", "", with("REPMGR_PASSWORD=", "REPMGR_PASSWORD_FILE="+secret)},
		{"weak", "REPMGR_PASSWORD", with("REPMGR_PASSWORD=", "REPMGR_PASSWORD=1234567")},
		{"no such file", "REPMGR_PASSWORD_FILE", with("REPMGR_PASSWORD=", "REPMGR_PASSWORD_FILE="+secret+"x")},
		{"backends", "PGPOOL_BACKEND_NODES", []string{"PGPOOL_BACKEND_NODES=0:a:5432,b"}},
		{"reserved role", "POSTGRESQL_USERNAME", with("POSTGRESQL_USERNAME=pg_me")},
	} {
		h, errs := Read(c.env, "host")
		var text []string
		for _, e := range errs {
			text = append(text, e.Error())
		}
		all := strings.Join(text, "\n")
		if c.want == "" && all != "" || c.want != "" && !strings.Contains(all, c.want) {
			t.Errorf("%s: %q, want %q", c.name, all, c.want)
		}
		if c.name == "file" && h.JoinSecret != "from a file" {
			t.Errorf("file: %q", h.JoinSecret)
		}
	}
	h, _ := Read(with("REPMGR_LOG_LEVEL=DEBUG", "POSTGRESQL_FSYNC=off", "PGPOOL_X=1"), "host")
	if got := strings.Join(h.Notes, "\n"); !strings.Contains(got, "$PGPOOL_X") || !strings.Contains(got, "$REPMGR_LOG_LEVEL") || !strings.Contains(got, "$POSTGRESQL_FSYNC") {
		t.Errorf("unknown variables are not named: %q", got)
	}
}

func TestSettingSyntax(t *testing.T) {
	for _, c := range []struct {
		line, name, value string
		ok                bool
		why               string
	}{
		{"", "", "", false, ""},
		{"  # work_mem = 1MB", "", "", false, ""},
		{"work_mem = 8MB", "work_mem", "8MB", true, ""},
		{"work_mem 8MB # eight", "work_mem", "8MB", true, ""},
		{"work_mem='8MB'#eight", "work_mem", "8MB", true, ""},
		{`log_line_prefix = '%m ''x'' \'y\' # no comment '`, "log_line_prefix", "%m 'x' 'y' # no comment ", true, ""},
		{"a.b = 'c'", "a.b", "c", true, ""},
		{"x = ''", "x", "", true, ""},
		{"work_mem =", "", "", false, "no value"},
		{"work_mem", "", "", false, "no value"},
		{"work_mem = 8 MB", "", "", false, "text after the value"},
		{"x = 'open", "", "", false, "closing quote"},
	} {
		name, value, ok, why := parseSetting(c.line)
		if name != c.name || value != c.value || ok != c.ok || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%q: %q %q %v %q", c.line, name, value, ok, why)
		}
	}
}

func places(t *testing.T) Places {
	d := t.TempDir()
	p := Places{DataDir: d + "/data", RunDir: d + "/run", Secrets: d + "/secrets", Custom: d + "/custom", Stanza: d + "/pgbackrest.conf", Scripts: d + "/init", Repo: d + "/repo"}
	for _, dir := range []string{p.DataDir, p.Secrets, p.Custom} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// TestRender: what may be set takes effect, what may not is named with its line,
// and the result is a right configuration.
func TestRender(t *testing.T) {
	p := places(t)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(p.Custom, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("postgresql.conf", "shared_buffers = 256MB\n\nsynchronous_standby_names = ''\nwork_mem = 4MB\nwork_mem = 8MB\ninclude 'x.conf'\nlog_line_prefix = 'a: b # c '\nmax_wal_size = much\n")
	write("pg_hba.conf", "# comment\nlocal all all trust\nhost all all 0.0.0.0/0 trust\nhost \"a#b\" all 10.0.0.0/8 scram-sha-256 # why\nnonsense\nhostssl all all 10.0.0.0/33 scram-sha-256\n")
	h, errs := Read(seedMaster, "")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	text, refused, err := Render(h, p, Translators{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("manada.yaml", text, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := c.PostgreSQL.Parameters; len(got) != 3 || got["shared_buffers"] != "256MB" || got["work_mem"] != "8MB" || got["log_line_prefix"] != "a: b # c " {
		t.Errorf("parameters %q", got)
	}
	if got := c.PostgreSQL.HBA; len(got) != 2 || got[1] != `host "a#b" all 10.0.0.0/8 scram-sha-256` {
		t.Errorf("rules %q", got)
	}
	all := strings.Join(refused, "\n")
	for _, want := range []string{"postgresql.conf:3: synchronous_standby_names", "postgresql.conf:6: include", "postgresql.conf:8: max_wal_size", "pg_hba.conf:3: ", "pg_hba.conf:5: ", "pg_hba.conf:6: "} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not named in:\n%s", want, all)
		}
	}
	if len(refused) != 6 {
		t.Errorf("refused:\n%s", all)
	}
	if c.Node != "master-1" || c.Advertise != "postgresql-master" || c.Join.SecretFile != p.SecretFile(h) || !c.Has(config.Store) {
		t.Errorf("%+v", c)
	}
	if strings.Contains(string(text), "replica_pass") {
		t.Error("a password is in the configuration")
	}
}

// TestSecret: whoever comes first makes it up, the others take it; a given one wins.
func TestSecret(t *testing.T) {
	p := places(t)
	first := &Host{}
	done := make(chan error, 8)
	for range 8 {
		go func() { done <- p.KeepSecret(first) }()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	a, err := p.secret(first)()
	if err != nil || len(a) < 20 {
		t.Fatalf("%q %v", a, err)
	}
	if err := p.KeepSecret(first); err != nil {
		t.Fatal(err)
	}
	if b, _ := p.secret(first)(); b != a {
		t.Fatal("it changed")
	}
	if err := p.KeepSecret(&Host{JoinSecret: "given"}); err != nil {
		t.Fatal(err)
	}
	if b, _ := p.secret(first)(); b != "given" {
		t.Fatalf("who was given none reads %q", b)
	}
	files, _ := filepath.Glob(p.Secrets + "/*")
	hidden, _ := filepath.Glob(p.Secrets + "/.*")
	for _, f := range files {
		if st, _ := os.Stat(f); st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", f, st.Mode().Perm())
		}
	}
	for _, f := range hidden {
		if b := filepath.Base(f); b != "." && b != ".." {
			t.Errorf("left over: %s", f)
		}
	}
}
