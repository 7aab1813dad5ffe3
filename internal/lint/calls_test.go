package lint

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// programs of PostgreSQL. Of these only package postgres knows how they are run.
var programs = []string{
	"initdb", "pg_ctl", "pg_rewind", "pg_basebackup", "pg_waldump", "pg_controldata", "pg_resetwal", "pg_checksums",
	"pg_receivewal", "pg_isready", "pg_verifybackup", "pg_combinebackup", "pg_archivecleanup", "pg_upgrade", "pg_dump", "pg_dumpall", "pg_restore",
}

// ambiguous are programs whose names are also names of roles, databases or
// commands that people type: only as an argument of what starts processes.
var ambiguous = []string{"postgres", "psql"}

var starters = []string{"os/exec.Command", "os/exec.CommandContext", "os/exec.LookPath", "os.StartProcess", "syscall.Exec", "syscall.ForkExec", "syscall.StartProcess"}

// namers may name the programs without running them: package config checks
// that they are where the configuration says. It must not be able to start one.
var namers = []string{"internal/config"}

// postgresPrograms: a program's name as a string outside package postgres means
// that somebody else is about to run it.
func postgresPrograms(s *source) []string {
	if s.testish() || within(s.pkg(), "internal/postgres") {
		return nil
	}
	if slices.Contains(namers, s.pkg()) {
		return startsProcesses(s)
	}
	var out []string
	object := func(n ast.Node, name string) {
		out = append(out, s.at(n.Pos(), "%s is run by internal/postgres only", name))
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if name := base(n); slices.Contains(programs, name) {
				object(n, name)
			}
		case *ast.CallExpr:
			if !slices.Contains(starters, s.call(n)) {
				return true
			}
			for _, arg := range n.Args {
				ast.Inspect(arg, func(n ast.Node) bool {
					if lit, ok := n.(*ast.BasicLit); ok && slices.Contains(ambiguous, base(lit)) {
						object(lit, base(lit))
					}
					return true
				})
			}
		}
		return true
	})
	return out
}

func startsProcesses(s *source) []string {
	var out []string
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && slices.Contains(starters, s.call(c)) && s.call(c) != "os/exec.LookPath" {
			out = append(out, s.at(n.Pos(), "%s may name PostgreSQL's programs and therefore starts no process", s.pkg()))
		}
		return true
	})
	return out
}

// base is the last element of a string literal that is a path.
func base(lit *ast.BasicLit) string {
	if lit.Kind != token.STRING {
		return ""
	}
	v, err := strconv.Unquote(lit.Value)
	if err != nil || strings.ContainsAny(v, " \n") {
		return ""
	}
	return path.Base(v)
}

func TestOnlyPostgresRunsPostgres(t *testing.T) { holds(t, postgresPrograms) }

// background: a context without an end is for main, for tests, for the root of
// the command line, and for work that must outlive its cause; the latter says
// so in a comment "detached: why" on the line or the line above.
func background(s *source) []string {
	if s.testish() || s.isMain() || s.path == "internal/cli/main.go" {
		return nil
	}
	detached := map[int]bool{}
	for _, g := range s.ast.Comments {
		for _, c := range g.List {
			if strings.HasPrefix(strings.ToLower(strings.TrimSpace(strings.TrimPrefix(c.Text, "//"))), "detached:") {
				detached[s.fset.Position(c.Pos()).Line] = true
				detached[s.fset.Position(g.End()).Line+1] = true
			}
		}
	}
	var out []string
	ast.Inspect(s.ast, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		name := s.call(c)
		if name != "context.Background" && name != "context.TODO" {
			return true
		}
		if !detached[s.fset.Position(c.Pos()).Line] {
			out = append(out, s.at(c.Pos(), "%s: take the caller's context, or say on this line or above it: // detached: why", name))
		}
		return true
	})
	return out
}

func TestContextsEnd(t *testing.T) { holds(t, background) }

// renames: what must last is written by package durable; a rename without it
// says why it need not last, in a comment "need not last: why" on its line.
func renames(s *source) []string {
	if s.testish() || within(s.pkg(), "internal/durable") {
		return nil
	}
	excused := map[int]bool{}
	for _, g := range s.ast.Comments {
		for _, c := range g.List {
			if strings.HasPrefix(c.Text, "// need not last: ") {
				excused[s.fset.Position(c.Pos()).Line] = true
			}
		}
	}
	var out []string
	ast.Inspect(s.ast, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok || excused[s.fset.Position(c.Pos()).Line] {
			return true
		}
		sel, _ := c.Fun.(*ast.SelectorExpr)
		syncs := sel != nil && sel.Sel.Name == "Sync" && len(c.Args) == 0
		if name := s.call(c); syncs || name == "os.Rename" || name == "golang.org/x/sys/unix.Renameat2" || name == "golang.org/x/sys/unix.Fsync" {
			out = append(out, s.at(c.Pos(), "what must last is written by internal/durable; else say on this line: // need not last: why"))
		}
		return true
	})
	return out
}

func TestOnlyDurableRenames(t *testing.T) { holds(t, renames) }
