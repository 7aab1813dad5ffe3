package herd

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// nasty has in it what each form has to escape.
func nasty(t *testing.T) Connection {
	dir := t.TempDir()
	passfile := filepath.Join(dir, "pass 100%&file")
	if err := os.WriteFile(passfile, []byte("*:*:*:*:from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Connection{Addrs: []string{"10.0.0.1:5431", "db2.example.org:5441", "[fd00::3]:5431"}, User: "o'app user", Database: "or ders/x", Passfile: passfile}
}

// What is printed is read by pgx as it is meant, all hosts of it, in their order.
func TestFormsAsPgxReadsThem(t *testing.T) {
	for _, f := range []Format{LibpqForm, KeysForm} {
		for _, password := range []string{"", `p:a\s's w?rd#&/@%`} {
			c := nasty(t)
			want := "from the file"
			if password != "" {
				c.Password, c.Passfile, want = password, "", password
			}
			text, err := c.Text(f)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("PGSSLMODE", "disable") // else every host is there twice
			cfg, err := pgconn.ParseConfig(text)
			if err != nil {
				t.Errorf("%s: %v\n%s", f, err, text)
				continue
			}
			if cfg.User != c.User || cfg.Database != c.Database || cfg.Password != want || cfg.Host != "10.0.0.1" || cfg.Port != 5431 || len(cfg.Fallbacks) != 2 ||
				cfg.Fallbacks[0].Host != "db2.example.org" || cfg.Fallbacks[0].Port != 5441 || cfg.Fallbacks[1].Host != "fd00::3" || cfg.Fallbacks[1].Port != 5431 {
				t.Errorf("%s: %s\n%+v", f, text, cfg)
			}
		}
	}
}

// And so by libpq: psql says whom it could not reach.
func TestFormsAsLibpqReadsThem(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("psql is not installed")
	}
	c := Connection{Addrs: []string{"127.0.0.1:1", "localhost:2"}, User: "o'app user", Database: "or ders", Password: `p:a\s's w?rd#&/@%`}
	for _, f := range []Format{LibpqForm, KeysForm} {
		text, err := c.Text(f)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), psql, "-X", text, "-c", "select 1")
		cmd.Env = []string{"LC_ALL=C", "HOME=" + t.TempDir()}
		out, _ := cmd.CombinedOutput()
		if s := string(out); !strings.Contains(s, "127.0.0.1\", port 1") || !strings.Contains(s, "port 2") || strings.Contains(s, "invalid") {
			t.Errorf("%s: %s\n%s", f, text, s)
		}
	}
}

func TestFormForJDBC(t *testing.T) {
	c := nasty(t)
	c.Password, c.RootCert = "p&w d", "/etc/x y/ca.crt"
	text, err := c.Text(JDBCForm)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(text, "jdbc:postgresql://10.0.0.1:5431,db2.example.org:5441,[fd00::3]:5431/")
	path, query, found := strings.Cut(rest, "?")
	q, err := url.ParseQuery(query)
	if database, _ := url.PathUnescape(path); !ok || !found || err != nil || database != c.Database || strings.Contains(path, "/") {
		t.Errorf("%s: %v", text, err)
	}
	if q.Get("user") != c.User || q.Get("password") != c.Password || q.Get("sslmode") != "verify-full" || q.Get("sslrootcert") != c.RootCert {
		t.Errorf("%v", q)
	}
}

// Lines of a .pgpass are found by who reads them, for each host.
func TestFormForPgpass(t *testing.T) {
	c := nasty(t)
	if _, err := c.Text(PgpassForm); !errors.Is(err, ErrUsage) {
		t.Errorf("without a password: %v", err)
	}
	c.Password, c.Passfile = `a:b\c`, ""
	text, err := c.Text(PgpassForm)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := c
	with.Password, with.Passfile = "", file
	keys, err := with.Text(KeysForm)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := pgconn.ParseConfig(keys)
	if err != nil || cfg.Password != c.Password {
		t.Errorf("%v, %q\n%s", err, cfg.Password, text)
	}
	if n := strings.Count(text, "\n"); n != 2 {
		t.Errorf("%s", text)
	}
}
