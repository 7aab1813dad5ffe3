package proxy_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"
	"manada/test/trust"

	"github.com/jackc/pgx/v5"
)

// Clients that stop after their first packet, and connections that say nothing at
// all, keep nobody out: neither from another address nor from the same.
func TestTrustStrangersKeepNobodyOut(t *testing.T) {
	max, silent, bare := 50, 130, 230
	if trust.All() {
		max, silent, bare = 1000, 1300, 2300
	}
	f := start(t, func(c *proxy.Config) { c.MaxClientConn = max })
	role := f.role(t, "login password 'pw'")
	stranger := func(first []byte) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: 10 * time.Second}
		c, err := d.DialContext(t.Context(), "tcp", f.Addr(session.ReadWrite).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.Write(first)
	}
	for range bare {
		stranger(nil)
	}
	for range silent {
		stranger(startup(wire.Version30, "user", role))
	}
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		cfg, err := pgx.ParseConfig(f.dsn(session.ReadWrite, role, "pw", "sslmode=disable"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
		for range 20 {
			began := time.Now()
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil || time.Since(began) > 5*time.Second {
				t.Fatalf("from %s: %v after %s", from, err, time.Since(began))
			}
			c.Close(t.Context())
		}
	}
	if n := f.Status().Ports["read_write"].Clients; n > 1 {
		t.Errorf("%d clients are counted", n)
	}
}

// exchange is what a proxy says to a client before its proof.
func exchange(t *testing.T, f *fixture, user string) string {
	t.Helper()
	c := f.dial(t, session.ReadWrite)
	c.Write(startup(wire.Version30, "user", user))
	var out []string
	next := func() {
		typ, body, err := wire.ReadMessage(c, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%c %q", typ, body))
	}
	next()
	c.Write(wire.AppendSASLInitial(nil, "SCRAM-SHA-256", []byte("n,,n=,r=nonce")))
	next()
	_, salt, _ := strings.Cut(out[1], ",s=")
	return out[0] + " " + out[1][:1] + " s=" + salt
}

// Before a proof nobody learns of a role whether it exists, has a password of
// another kind or may log in: each answer looks like a role's, and is the same
// the next time, at another proxy, and after a restart.
func TestRolesAreNotToldApart(t *testing.T) {
	f, other := start(t, nil), start(t, nil)
	role := f.role(t, "password 'pw'") // may not log in
	md5, bare := role+"_md5", role+"_bare"
	f.admin(t, fmt.Sprintf("set password_encryption='md5'; create role %s login password 'pw'; create role %s login", md5, bare))
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), superuser(f.primary.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background())
		c.Exec(context.Background(), fmt.Sprintf("drop role %s, %s", md5, bare))
	})
	form := func(s string) string { head, _, _ := strings.Cut(s, " s="); return head }
	salts := map[string]bool{}
	want := ""
	for _, user := range []string{role, md5, bare, "nobody_at_all", "nobody_\xff"} {
		got := exchange(t, f, user)
		if again := exchange(t, other, user); again != got {
			t.Errorf("%q: %s here and %s at another proxy", user, got, again)
		}
		if want == "" {
			want = form(got)
		}
		if form(got) != want || !strings.HasSuffix(got, ",i=4096\"") || len(got) != len(want)+len(" s=")+24+len(",i=4096\"") {
			t.Errorf("%q: %s", user, got)
		}
		if salts[got] {
			t.Errorf("%q has the salt of another", user)
		}
		salts[got] = true
	}
}

// Guessing becomes slow, for that role from that address only.
func TestWrongPasswordsAreSlowed(t *testing.T) {
	f := start(t, nil)
	role := f.role(t, "login password 'pw'")
	dial := func(from, user, password string) (error, time.Duration) {
		cfg, err := pgx.ParseConfig(f.dsn(session.ReadWrite, user, password, "sslmode=disable"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
		began := time.Now()
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err == nil {
			c.Close(t.Context())
		}
		return err, time.Since(began)
	}
	began := time.Now()
	for range 6 {
		if err, _ := dial("127.0.0.3", role, "wrong"); code(err) != "28P01" {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d < 1500*time.Millisecond {
		t.Errorf("six guesses took %s", d)
	}
	if err, d := dial("127.0.0.1", role, "pw"); err != nil || d > time.Second {
		t.Errorf("from elsewhere: %v after %s", err, d)
	}
	if err, _ := dial("127.0.0.3", role, "pw"); err != nil {
		t.Errorf("the right one, after its turn: %v", err)
	}
	if err, d := dial("127.0.0.3", role, "wrong"); code(err) != "28P01" || d > time.Second {
		t.Errorf("a slip after that: %v after %s", err, d)
	}
}
