package proxy_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
	"manada/internal/proxy/session"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// libpq with both ports in its list of hosts, in either order, finds what it was told to
// find by target_session_attrs: with all nodes, while there is no primary, and while no
// standby can be read from.
func TestTargetSessionAttrs(t *testing.T) {
	const rw, ro, fallback = "off false", "on true", "on false" // default_transaction_read_only, in recovery
	const readOnly, noStandby, noPrimary = "session is read-only", "server is not in hot standby mode", "no primary to connect to"
	for _, mode := range []rules.Mode{rules.Auto, rules.Session} {
		for _, pooled := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/pooled %v", mode, pooled), func(t *testing.T) {
				f := start(t, func(c *proxy.Config) {
					c.Split, c.ConnectWait = !pooled || mode == rules.Auto, 100*time.Millisecond
					c.Pool.Default.Mode, c.Pool.Default.Size, c.Pool.Default.QueueTimeout = mode, 4, 10*time.Second
				})
				role := f.role(t, "login password 'x'")
				epoch := uint64(7)
				views := []func() route.View{
					func() route.View { return f.view(epoch) },
					func() route.View {
						v, all := gap(), f.view(epoch)
						v.Epoch, v.Standbys, v.Members = epoch+1, all.Standbys, all.Members[1:]
						return v
					},
					func() route.View {
						epoch += 2
						v := f.view(epoch)
						v.Standbys = nil
						return v
					},
				}
				for _, c := range []struct {
					attrs                string
					all, gap, alone      string // what is found, or what libpq says
					firstAll, firstInGap string // where the read-only port stands first, when that is otherwise
					firstAlone           string
				}{
					{attrs: "any", all: rw, firstAll: ro, gap: ro, alone: rw, firstAlone: fallback},
					{attrs: "read-write", all: rw, gap: noPrimary + "&" + readOnly, alone: rw},
					{attrs: "read-only", all: ro, gap: ro, alone: fallback},
					{attrs: "primary", all: rw, gap: noPrimary + "&server is in hot standby mode", alone: rw, firstAlone: fallback},
					{attrs: "standby", all: ro, gap: ro, alone: noStandby},
					{attrs: "prefer-standby", all: ro, gap: ro, alone: rw, firstAlone: fallback},
				} {
					for _, first := range []session.Port{session.ReadWrite, session.ReadOnly} {
						want := []string{c.all, c.gap, c.alone}
						if first == session.ReadOnly {
							for i, w := range []string{c.firstAll, c.firstInGap, c.firstAlone} {
								if w != "" {
									want[i] = w
								}
							}
						}
						for i, when := range []string{"with all", "without a primary", "without a standby"} {
							f.top.Set(views[i]())
							f.finds(t, when, role, c.attrs, first, want[i])
						}
					}
				}
			})
		}
	}
}

// finds has psql connect to either port.
func (f *fixture) finds(t *testing.T, when, role, attrs string, first session.Port, want string) {
	t.Helper()
	port := func(p session.Port) string { _, s, _ := net.SplitHostPort(f.Addr(p).String()); return s }
	cmd := f.command("psql", "-XAtq", fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%s,%s user=%s dbname=postgres target_session_attrs=%s",
		port(first), port(1-first), role, attrs), "-c", "show default_transaction_read_only", "-c", "select pg_is_in_recovery()")
	cmd.Env = []string{"PGPASSWORD=x", "HOME=" + f.dir, "LC_ALL=C", "PGSSLMODE=disable"}
	hang := time.AfterFunc(20*time.Second, func() {
		t.Errorf("%s, %s, %s port first: no end", when, attrs, first)
		cmd.Process.Kill()
	})
	defer hang.Stop()
	out, err := cmd.CombinedOutput()
	got := strings.NewReplacer("\nt", " true", "\nf", " false").Replace(strings.TrimSpace(string(out)))
	for one := range strings.SplitSeq(want, "&") {
		if !strings.Contains(got, one) || (err == nil) != (one == got) {
			t.Errorf("%s, %s, %s port first: %q, %v; want %q", when, attrs, first, got, err, one)
		}
	}
}

// While there is no primary a client is told so in time, by a code that has libpq try the
// next host, and what to look at: one that comes and one that is there, in every mode.
func TestNoPrimaryInTime(t *testing.T) {
	for _, mode := range everyMode {
		t.Run(mode.String(), func(t *testing.T) {
			f := pooled(t, mode, 2, func(c *proxy.Config) {
				c.ConnectWait, c.Pool.Default.QueueTimeout = 200*time.Millisecond, time.Second
			})
			role := f.role(t, "login password 'x'")
			dsn := f.dsn(session.ReadWrite, role, "x", "sslmode=disable")
			there := connect(t, dsn)
			query[int](t, there, "select 1")
			v := gap()
			f.top.Set(v)
			_, comes := pgx.Connect(t.Context(), dsn)
			v.Standbys = f.view(7).Standbys // by which it may prove who it is
			f.top.Set(v)
			_, proved := pgx.Connect(t.Context(), dsn)
			_, asks := there.Exec(t.Context(), "insert into nowhere values (1)")
			for who, err := range map[string]error{"who comes": comes, "who has proved who it is": proved, "who is there": asks} {
				want := "57P03"
				if who == "who is there" && mode == rules.Session {
					want = "57P01" // its server was the deposed primary's
				}
				var e *pgconn.PgError
				if !errors.As(err, &e) {
					t.Errorf("%s: %v", who, err)
					continue
				}
				if e.Code != want || e.Hint == "" {
					t.Errorf("%s: %v, hint %q", who, err, e.Hint)
				}
				if want == "57P03" && (!strings.Contains(e.Message, "epoch 8 was won by slave and is not open yet") || !strings.Contains(e.Hint, "manada status")) {
					t.Errorf("%s: %v, hint %q", who, err, e.Hint)
				}
			}
			f.top.Set(f.view(9))
			query[int](t, connect(t, dsn), "select 1")
		})
	}
}
