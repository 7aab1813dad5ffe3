package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/pki"
	"manada/internal/rotate"
	"manada/test/measure"
)

// rotation makes all of the herd's secrets new while an application writes: no
// commit fails, nobody is cut off, and a host that was off comes back.
func rotation(t *testing.T) {
	e := shared(t, 6*time.Minute)
	s := e.healthy()
	teller := "dbname=postgres user=teller password=teller sslmode=require host=127.0.0.1 port=" + fmt.Sprint(e.Port("proxy", "sql"))
	e.value(e.DSN(), "drop role if exists teller; create role teller login password 'teller'")
	if err := measure.Prepare(e.ctx, e.DSN()); err != nil {
		t.Fatal(err)
	}
	e.value(e.DSN(), "alter table "+measure.Table+" owner to teller")
	began := time.Now()
	l := &load{measure.Start(e.ctx, teller, 0), e, began}
	t.Cleanup(l.Stop)
	l.more(200)
	masters := map[string]int{"master": e.Postmaster("master"), "slave": e.Postmaster("slave")}
	before := e.held("slave")
	oldCA := e.read("master", "ca.crt")

	for _, what := range []string{"passwords", "certificates", "ca"} {
		e.ok(e.manada("secrets", "rotate", what))
		e.allTaken(what)
		l.more(50)
		e.value(teller, "select 1")
	}
	if err := e.Relearn(); err != nil {
		t.Fatal(err)
	}
	after := e.held("slave")
	for role, p := range before.Passwords {
		if after.Passwords[role] == p {
			t.Errorf("the password of %s is the old one", role)
		}
	}
	for role := range before.Passwords {
		if role != "postgres" { // the members' own; over TCP, as a thief would
			e.noLogin(role, before.Passwords[role])
		}
	}
	e.value(e.DSN(), "select 1")
	// An application that only has the former ca.crt, and one with the new one.
	for name, ca := range map[string]string{"former": oldCA, "new": e.read("master", "ca.crt")} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
			t.Fatal(err)
		}
		e.value(strings.Replace(teller, "sslmode=require", "sslmode=verify-full sslrootcert="+file, 1), "select 1")
	}
	e.refused(e.manada("secrets", "rotate", "ca"), 1, "still believed", "--finish")
	e.eventually(90*time.Second, "an end of the former authority", func() string {
		if r := e.manada("secrets", "rotate", "ca", "--finish"); r.code != 0 {
			return r.err
		}
		return ""
	})
	e.allTaken("finish")
	l.more(50)
	if n := strings.Count(e.read("slave", "ca.crt"), "BEGIN"); n != 1 {
		t.Errorf("slave believes %d authorities", n)
	}
	e.healthy()
	e.same(s, masters, "a rotation")

	// A host that is off meanwhile gets what is new when it comes back.
	off := standby(s)
	if err := e.StopHost(e.ctx, off); err != nil {
		t.Fatal(err)
	}
	r := e.ok(e.manada("secrets", "rotate", "all"))
	if !strings.Contains(r.err, off) {
		t.Errorf("rotate all does not say that %s gets it later:\n%s", off, r.err)
	}
	l.more(50)
	if err := e.StartHost(e.ctx, off); err != nil {
		t.Fatal(err)
	}
	e.healthy()
	e.allTaken(off + " is back")
	if err := e.Relearn(); err != nil {
		t.Fatal(err)
	}
	l.end("rotation of everything", 2*time.Second)
	for text, n := range l.Errors() {
		t.Errorf("%d clients' errors: %s", n, text)
	}
}

// changedByHand: the superuser's password that somebody changed is noticed,
// never shown, told to the herd once, and left alone from then on.
func changedByHand(t *testing.T) {
	e := shared(t, 2*time.Minute)
	old := e.Password()
	e.value(e.DSN(), `alter role postgres password 'it''s:mine\'`)
	for _, args := range [][]string{{"uri"}, {"uri", "--show-password"}} {
		r := e.manada(args...)
		e.refused(r, 1, "changed by hand", "manada secrets set superuser")
		if strings.Contains(r.out+r.err, old) {
			t.Error("the old password was printed")
		}
	}
	set := func(password string) result {
		cmd := exec.CommandContext(e.ctx, bin, "secrets", "set", "superuser", "--dir", e.Dir)
		cmd.Stdin = strings.NewReader(password + "\n")
		return e.run(cmd)
	}
	e.refused(set("a guess"), 1, "has another password")
	e.ok(set(`it's:mine\`))
	uri := strings.TrimSpace(e.ok(e.manada("uri")).out)
	if v := e.value(uri, "select 41 + 1"); v != "42" {
		t.Errorf("through %s: %s", uri, v)
	}
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	pass, err := os.ReadFile(u.Query().Get("passfile"))
	if err != nil || strings.Contains(string(pass), "*:*:*") || !strings.HasPrefix(string(pass), "127.0.0.1:") {
		t.Errorf("the passfile does not name its hosts: %v", err)
	}
	r := e.ok(e.manada("secrets", "rotate", "passwords"))
	if !strings.Contains(r.err, "postgres was left as it is") {
		t.Errorf("rotate does not say what it left:\n%s", r.err)
	}
	e.value(uri, "select 1")
	if r := e.ok(e.manada("uri", "--user", "app", "--show-password")); !strings.Contains(r.err, "does not know the password of app") {
		t.Errorf("uri of a role whose password nobody knows:\n%s", r.err)
	}
	if err := e.Relearn(); err != nil {
		t.Fatal(err)
	}
}

// allTaken waits until no host lacks anything.
func (e *env) allTaken(what string) {
	e.Helper()
	e.eventually(time.Minute, "all hosts have taken it up: "+what, func() string {
		r := e.manada("secrets", "status", "-o", "json")
		var s rotate.State
		if r.code != 0 || json.Unmarshal([]byte(r.out), &s) != nil {
			return r.out + r.err
		}
		if len(s.Behind) > 0 || len(s.Voters) > 0 || s.Spreading || s.Pending != nil {
			return r.out
		}
		return ""
	})
}

func (e *env) read(host, name string) string {
	e.Helper()
	b, err := os.ReadFile(filepath.Join(e.Data, host, "identity", name))
	if err != nil {
		e.Fatal(err)
	}
	return string(b)
}

func (e *env) held(host string) pki.Held {
	e.Helper()
	h, err := pki.ReadHeld(filepath.Join(e.Data, host, "identity"))
	if err != nil {
		e.Fatal(err)
	}
	return h
}

// noLogin: the password opens neither node nor proxy.
func (e *env) noLogin(role, password string) {
	e.Helper()
	for host, port := range map[string]string{"master": "postgresql", "slave": "postgresql", "proxy": "sql"} {
		dsn := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres sslmode=require user=%s password='%s'", e.Port(host, port), role, password)
		if v, err := e.Value(e.ctx, dsn, "select current_user"); err == nil {
			e.Errorf("the former password of %s opens %s: %s", role, host, v)
		}
	}
}
