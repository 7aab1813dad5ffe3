package lint

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"manada/internal/health"
)

// codeNames maps the constants of package health to their codes.
func codeNames(t *testing.T) map[string]health.Code {
	t.Helper()
	names := map[string]health.Code{}
	for _, s := range sources(t) {
		if s.pkg() != "internal/health" || !strings.HasPrefix(path.Base(s.path), "conditions_") {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
				if lit, ok := v.Values[0].(*ast.BasicLit); ok {
					code, _ := strconv.Unquote(lit.Value)
					names[v.Names[0].Name] = health.Code(code)
				}
			}
			return true
		})
	}
	return names
}

// sayings: whoever says a condition gives every argument of its sentence. The
// call to look for is Say, with its code and its names as constants.
func sayings(names map[string]health.Code) rule {
	return func(s *source) []string {
		var out []string
		ast.Inspect(s.ast, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok || s.isTest() || c.Ellipsis.IsValid() || len(c.Args) < 2 {
				return true
			}
			own, _ := c.Fun.(*ast.Ident)
			if s.call(c) != module+"/internal/health.Say" && !(s.pkg() == "internal/health" && own != nil && own.Name == "Say") {
				return true
			}
			name := ""
			switch a := c.Args[0].(type) {
			case *ast.SelectorExpr:
				name = a.Sel.Name
			case *ast.Ident:
				name = a.Name
			}
			e, ok := health.Lookup(names[name])
			if !ok {
				return true // a variable
			}
			var given []string
			for i := 2; i < len(c.Args); i += 2 {
				if lit, ok := c.Args[i].(*ast.BasicLit); ok {
					v, _ := strconv.Unquote(lit.Value)
					given = append(given, v)
				}
			}
			for _, want := range e.Args {
				if !slices.Contains(given, want) {
					out = append(out, s.at(c.Pos(), "%s (%s) wants the argument %q", name, e.Code, want))
				}
			}
			return true
		})
		return out
	}
}

func TestConditionsAreSaidInFull(t *testing.T) {
	names := codeNames(t)
	if len(names) != len(health.All()) {
		t.Errorf("%d constants, %d conditions", len(names), len(health.All()))
	}
	holds(t, sayings(names))
}

func TestSayingsObject(t *testing.T) {
	r := sayings(map[string]health.Code{"StandbyLagging": health.StandbyLagging})
	for src, want := range map[string]string{
		`package agent; import "manada/internal/health"; var c = health.Say(health.StandbyLagging, "x")`:               `"lag"`,
		`package agent; import "manada/internal/health"; var c = health.Say(health.StandbyLagging, "x", "log", 1)`:     `"lag"`,
		`package agent; import "manada/internal/health"; var c = health.Say(health.StandbyLagging, "x", "lag", 1)`:     "",
		`package agent; import h "manada/internal/health"; var c = h.Say(h.StandbyLagging, "x")`:                       `"lag"`,
		`package agent; import "example.org/health"; var c = health.Say(health.StandbyLagging, "x")`:                   "",
		`package agent; import "manada/internal/health"; func f(k health.Code) { _ = health.Say(k, "x", "lag", "1") }`: "",
	} {
		s, err := parse("internal/agent/x.go", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		expect(t, src, r(s), want)
	}
}
