package proxy_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"manada/internal/porttest"
	"manada/internal/proxy/pool/rules"
	"manada/test/conversation"

	"github.com/jackc/pgx/v5/pgconn"
)

// verdict is a line of testdata/pgbouncer.txt: how the answers of PgBouncer differ from
// PostgreSQL's in a conversation, and what ours do there.
type verdict struct {
	unlike
	ours string
}

// What ours may be.
var ours = []string{
	"direct",     // as PostgreSQL's
	"same",       // as PgBouncer's
	"better",     // another difference
	"ours alone", // PgBouncer has none
}

func verdicts(t *testing.T, mode rules.Mode) (out []*verdict) {
	t.Helper()
	for _, f := range rowsOf(t, "testdata/pgbouncer.txt", 6) {
		v := &verdict{unlike{text: strings.Join(f, " | "), modes: strings.Fields(f[0]), want: f[2], got: f[3], why: f[5]}, f[4]}
		var err error
		if v.name, err = regexp.Compile("^(?:" + f[1] + ")$"); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(ours, v.ours) {
			t.Errorf("%s: want one of %q", v.text, ours)
		}
		if slices.Contains(v.modes, mode.String()) {
			out = append(out, v)
		}
	}
	return out
}

// Whatever differs from PostgreSQL in PgBouncer's modes differs in PgBouncer, too, or is
// named as ours alone; and where we are said to be as PostgreSQL or as PgBouncer is, so
// say both tables.
func TestModesAreNoWorseThanPgBouncer(t *testing.T) {
	all, err := conversation.Corpus()
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range bouncers {
		list, theirs := unlikes(t, mode), verdicts(t, mode)
		for _, c := range all {
			mine := slices.DeleteFunc(slices.Clone(list), func(u *unlike) bool { return u.any() || !u.name.MatchString(c.Name) })
			its := slices.DeleteFunc(slices.Clone(theirs), func(v *verdict) bool { return v.any() || !v.name.MatchString(c.Name) })
			if len(mine) > 0 && len(its) == 0 {
				t.Errorf("%s, %s: nothing is said of PgBouncer", mode, c.Name)
			}
			for _, v := range its {
				same := slices.ContainsFunc(mine, func(u *unlike) bool { return strings.HasPrefix(u.got, v.got) || strings.HasPrefix(v.got, u.got) })
				if direct := len(mine) == 0; direct != (v.ours == "direct") || same && v.ours == "better" || !same && v.ours == "same" {
					t.Errorf("%s, %s: %s, but ours: %d lines, one of them the same: %v", mode, c.Name, v.text, len(mine), same)
				}
			}
		}
	}
}

// any says whether the line is of the mode, not of a conversation.
func (u *unlike) any() bool { return u.name.String() == "^(?:.*)$" }

// PgBouncer itself, in both modes: testdata/pgbouncer.txt says what it does. MANADA_RIVALS
// is the folder that bench/proxy/rivals.sh makes.
func TestConversationsOfPgBouncer(t *testing.T) {
	root := os.Getenv("MANADA_RIVALS")
	if root == "" {
		t.Skip("MANADA_RIVALS names no folder of bench/proxy/rivals.sh")
	}
	for _, mode := range bouncers {
		t.Run(mode.String(), func(t *testing.T) {
			f := start(t, unsplit)
			s := newStage(t, f)
			f.admin(t, "alter role "+s.role+" set search_path = conv_p") // options are not taken
			to := s.at(s.pgbouncer(t, f, root, mode))
			console, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://boss:boss@%s/pgbouncer?sslmode=disable", to.Addr))
			if err != nil {
				t.Fatal(err)
			}
			defer console.Close(context.WithoutCancel(t.Context()))
			var list []*unlike
			for _, v := range verdicts(t, mode) {
				if v.ours != "ours alone" {
					list = append(list, &v.unlike)
				}
			}
			r := random(t)
			s.greets = true
			each(t, func(t *testing.T, c *conversation.Conversation) {
				if _, err := console.Exec(t.Context(), "reconnect").ReadAll(); err != nil {
					t.Fatal(err)
				}
				s.isUnlike(t, to, c, r, list)
			})
			for _, u := range list {
				if !u.used && *only == "" {
					t.Errorf("testdata/pgbouncer.txt: not so (any more): %s", u.text)
				}
			}
		})
	}
}

const pgbouncerIni = `[databases]
postgres = host=127.0.0.1 port=%d dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s/users
admin_users = boss
pool_mode = %s
default_pool_size = 4
max_prepared_statements = 200
ignore_startup_parameters = options
log_connections = 0
log_disconnections = 0
`

// pgbouncer runs PgBouncer in its root, before the primary, and gives its address.
func (s *stage) pgbouncer(t *testing.T, f *fixture, root string, mode rules.Mode) (addr string) {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "conversations-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	verifier := query[string](t, connect(t, superuser(f.primary.addr())), "select rolpassword from pg_authid where rolname = $1", s.role)
	port, err := porttest.Pick()
	if err != nil {
		t.Fatal(err)
	}
	inside := strings.TrimPrefix(dir, strings.TrimSuffix(root, "/"))
	for name, text := range map[string]string{
		"users": fmt.Sprintf("%q %q\n\"boss\" \"boss\"\n", s.role, verifier),
		"ini":   fmt.Sprintf(pgbouncerIni, f.primary.port, port, inside, mode),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/pgbouncer", "-q", inside+"/ini")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Chroot: root, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	eventually(t, "PgBouncer listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}
