package lint

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// connectors open connections to PostgreSQL: by the driver, or by the proxy's
// own words. Of ours only package pgconnect knows how that is done safely.
var connectors = []string{
	"github.com/jackc/pgx/v5/pgconn", "github.com/jackc/pgx/v5", "github.com/jackc/pgx/v5/pgxpool", "database/sql",
}

// connects: every connection of ours begins in pgconnect, where it is made
// safe from what the owner of a database sets for it.
func connects(s *source) []string {
	if s.testish() || s.pkg() == "internal/pgconnect" {
		return nil
	}
	var out []string
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr: // as a call or as a value
			name := s.call(&ast.CallExpr{Fun: n})
			pkg, f := path.Split(name)
			base, f, _ := strings.Cut(f, ".")
			if slices.Contains(connectors, pkg+base) && (strings.HasPrefix(f, "Connect") || strings.HasPrefix(f, "ParseConfig") || strings.HasPrefix(f, "Open") || strings.HasPrefix(f, "New")) {
				out = append(out, s.at(n.Pos(), "%s: connect to PostgreSQL by internal/pgconnect", name))
			}
			if strings.HasSuffix(name, "internal/proxy/wire.AppendStartup") && s.pkg() != "internal/proxy/pool" {
				out = append(out, s.at(n.Pos(), "a start-up packet is sent by internal/proxy/pool only"))
			}
		case *ast.CompositeLit:
			out = append(out, foreignLogin(s, n)...)
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(f.Sel.Name, "Dial") && slices.ContainsFunc(n.Args, namesSocket) {
				out = append(out, s.at(n.Pos(), "connect to PostgreSQL's socket by internal/pgconnect"))
			}
		}
		return true
	})
	return out
}

func namesSocket(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && strings.Contains(lit.Value, ".s.PGSQL.")
}

// foreignLogin: in the pool a log-in is made in own.go, elsewhere for clients.
func foreignLogin(s *source, n *ast.CompositeLit) []string {
	name := ""
	switch t := n.Type.(type) {
	case *ast.Ident:
		if s.pkg() == "internal/proxy/pool" {
			name = t.Name
		}
	case *ast.SelectorExpr:
		if strings.HasSuffix(s.call(&ast.CallExpr{Fun: t}), "internal/proxy/pool.Login") {
			name = t.Sel.Name
		}
	}
	if name != "Login" || s.path == "internal/proxy/pool/own.go" || s.pkg() == "internal/proxy/session" {
		return nil
	}
	return []string{s.at(n.Pos(), "a log-in of the proxy's own is made in internal/proxy/pool/own.go, for whom in internal/proxy/session")}
}

func TestOursConnectInOnePlace(t *testing.T) { holds(t, connects) }

func TestConnectsObjects(t *testing.T) {
	for _, c := range []struct{ name, path, src, want string }{
		{"driver", "internal/agent/x.go", `package agent; import "github.com/jackc/pgx/v5/pgconn"; var f = pgconn.Connect`, "by internal/pgconnect"},
		{"its configuration", "internal/agent/x.go", `package agent; import "github.com/jackc/pgx/v5/pgconn"; func f() { pgconn.ConnectConfig(nil, nil) }`, "by internal/pgconnect"},
		{"pgx", "internal/agent/x.go", `package agent; import "github.com/jackc/pgx/v5"; func f() { pgx.Connect(nil, "") }`, "by internal/pgconnect"},
		{"sql", "internal/agent/x.go", `package agent; import "database/sql"; func f() { sql.Open("", "") }`, "by internal/pgconnect"},
		{"a pool", "internal/agent/x.go", `package agent; import "github.com/jackc/pgx/v5/pgxpool"; func f() { pgxpool.New(nil, "") }`, "by internal/pgconnect"},
		{"a type", "internal/agent/x.go", `package agent; import "github.com/jackc/pgx/v5/pgconn"; var c *pgconn.PgConn`, ""},
		{"start-up packet", "internal/agent/x.go", `package agent; import "manada/internal/proxy/wire"; var b = wire.AppendStartup(nil, nil)`, "start-up packet"},
		{"socket", "internal/agent/x.go", `package agent; import "net"; func f() { net.Dial("unix", "/tmp/.s.PGSQL.5432") }`, "socket"},
		{"log-in elsewhere", "internal/process/x.go", `package process; import "manada/internal/proxy/pool"; var l = pool.Login{}`, "own.go"},
		{"log-in in the pool", "internal/proxy/pool/x.go", `package pool; type Login struct{}; var l = Login{}`, "own.go"},
		{"log-in of a client", "internal/proxy/session/x.go", `package session; import "manada/internal/proxy/pool"; var l = pool.Login{}`, ""},
		{"the place", "internal/pgconnect/x.go", `package pgconnect; import "github.com/jackc/pgx/v5/pgconn"; var f = pgconn.ConnectConfig`, ""},
		{"test", "internal/agent/x_test.go", `package agent; import "github.com/jackc/pgx/v5/pgconn"; var f = pgconn.Connect`, ""},
	} {
		s, err := parse(c.path, []byte(c.src))
		if err != nil {
			t.Fatal(err)
		}
		expect(t, c.name, connects(s), c.want)
	}
}
