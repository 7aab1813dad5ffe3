package cli

import (
	"fmt"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/postgres"
	"manada/internal/postgres/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"manada": func() { os.Exit(Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// The scripts in testdata/script are command lines as they are typed, with what
// they print and their exit codes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			u, err := user.Current()
			if err != nil {
				return err
			}
			e.Setenv("USER", u.Username)
			for n := range 5 { // that nobody listens on
				e.Setenv(fmt.Sprintf("PORT%d", n), strconv.Itoa(pgtest.Port(t)))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": checkCode},
	})
}

// checkCode is "code N CMD ARGS...": the command must end with this exit code.
// (testscript itself tells only 0 from the rest.)
func checkCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command...")
	}
	ts.Check(ts.Exec("sh", append([]string{"-c", `want=$1; shift; "$@"; got=$?; [ $got = $want ] || { echo "exit code $got, want $want" >&2; exit 99; }`, "sh"}, args...)...))
}

// Each setting that PostgreSQL's care protects is refused in the file already,
// where the mistake has a line.
func TestProtectedParametersAreRefusedInTheFile(t *testing.T) {
	for name := range postgres.Protected {
		if name == "wal_level" {
			continue // refused by value
		}
		if config.OwnedParameter(name) == "" {
			t.Errorf("config accepts postgresql.parameters.%s, package postgres refuses it", name)
		}
	}
}

// Every proxy is named once, by what it says itself: also on hosts that have nothing else.
func TestProxyAddrs(t *testing.T) {
	cfg, err := config.Parse("f", []byte("cluster: orders\nnode: db1\nroles: [database, proxy]\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	listening := []peer.ListeningProxy{{Node: "db1", SQL: "db1:5431", ReadOnly: "db1:5430"}, {Node: "old", Addr: "old:7400"},
		{Node: "pooler", SQL: "pooler:6431", ReadOnly: "pooler:6430"}}
	rows := make([]peer.Row, 2)
	rows[0].Node, rows[0].Addrs.Proxy = "db1", "db1:5431"
	rows[1].Node, rows[1].Addrs.Proxy = "old", "old:5431"
	for readOnly, want := range map[bool]string{false: "db1:5431 pooler:6431 old:5431", true: "db1:5430 pooler:6430 old:5430"} {
		own := []string{"db1:5431"}
		if readOnly {
			own[0] = "db1:5430"
		}
		if got := strings.Join(proxyAddrs(cfg, own, listening, rows, readOnly), " "); got != want {
			t.Errorf("read-only %v: %s, want %s", readOnly, got, want)
		}
	}
}

func TestFirstHost(t *testing.T) {
	for uri, want := range map[string]string{
		"postgresql://a:b%2Cc@h1:1,h2:2/db?x=1,2": "postgresql://a:b%2Cc@h1:1/db?x=1,2",
		"postgresql://a@[::1]:1/db":               "postgresql://a@[::1]:1/db",
		"postgresql://a@h1:1,[::1]:2":             "postgresql://a@h1:1",
	} {
		if got := firstHost(uri); got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
		}
	}
	// A comma of a password stays as it is.
	if u := (&url.URL{Scheme: "postgresql", Host: "h:1", User: url.UserPassword("a", "b,c")}).String(); firstHost(u) != u {
		t.Error(u)
	}
}
