package lint

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pure are the packages that may not touch the world: same input, same output.
var pure = []string{"internal/cluster", "internal/decide", "internal/health", "internal/proxy/conv", "internal/proxy/pool/rules"}

// worldly are imports by which the world gets in; a prefix with / at its end
// stands for all below it.
var worldly = []string{"os", "os/", "net", "net/", "math/rand", "math/rand/", "crypto/rand", "syscall", "runtime", "sync", "sync/", "log", "log/", "unsafe"}

// harmless is below a worldly name and only computes.
const harmless = "net/netip"

// clocks are functions that read a clock or wait.
var clocks = []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker", "time.Tick"}

// purity: no goroutines, no channels, no clock, no I/O.
func purity(s *source) []string {
	if s.testish() || !slices.ContainsFunc(pure, func(p string) bool { return within(s.pkg(), p) }) {
		return nil
	}
	var out []string
	for _, i := range s.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if p != harmless && slices.ContainsFunc(worldly, func(w string) bool { return p == w || strings.HasSuffix(w, "/") && strings.HasPrefix(p, w) }) {
			out = append(out, s.at(i.Pos(), "%s is pure and must not import %s", s.pkg(), p))
		}
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			out = append(out, s.at(n.Pos(), "a goroutine in a pure package"))
		case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
			out = append(out, s.at(n.Pos(), "a channel in a pure package"))
		case *ast.SelectorExpr:
			// As a call or as a value: f := time.Now is no better.
			if name := s.call(&ast.CallExpr{Fun: n}); slices.Contains(clocks, name) {
				out = append(out, s.at(n.Pos(), "%s in a pure package: take the time as an argument", name))
			}
		}
		return true
	})
	return out
}

func TestPurePackages(t *testing.T) { holds(t, purity) }

// unordered are functions that walk a map; their result has an order only
// inside one of sorting.
var (
	unordered = []string{"maps.Keys", "maps.Values", "maps.All"}
	sorting   = []string{"slices.Sorted", "slices.SortedFunc", "slices.SortedStableFunc"}
)

// mapOrder finds walks over maps in a file of type-checked code. info may be
// incomplete; then what is known is judged.
func mapOrder(s *source, info *types.Info) []string {
	var out []string
	sorted := map[ast.Node]bool{}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name := s.call(n)
			if slices.Contains(sorting, name) && len(n.Args) > 0 {
				sorted[n.Args[0]] = true
			}
			if slices.Contains(unordered, name) && !sorted[n] {
				out = append(out, s.at(n.Pos(), "%s has no order: put it into slices.Sorted", name))
			}
		case *ast.RangeStmt:
			if tv, ok := info.Types[n.X]; ok && isMap(tv.Type) {
				out = append(out, s.at(n.Pos(), "range over a map has no order: range over slices.Sorted(maps.Keys(m))"))
			}
		}
		return true
	})
	return out
}

func isMap(t types.Type) bool {
	if p, ok := t.(*types.TypeParam); ok {
		t = p.Underlying()
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

// TestDecisionsKnowNoMapOrder: a decision that depends on the order of a map
// differs from run to run and no scenario can pin it down.
func TestDecisionsKnowNoMapOrder(t *testing.T) {
	var fs []*source
	for _, s := range sources(t) {
		if s.pkg() == "internal/decide" && !s.isTest() {
			fs = append(fs, s)
		}
	}
	if len(fs) == 0 {
		t.Skip("internal/decide has no code yet")
	}
	info, errs := check(t, "internal/decide", fs)
	for _, err := range errs {
		t.Errorf("internal/decide does not compile: %v", err)
	}
	for _, s := range fs {
		for _, f := range mapOrder(s, info) {
			t.Error(f)
		}
	}
}

// check type-checks a package against the compiler's export data, which the
// build of the tests has made already. It replaces the files of fs by those
// that the result speaks of.
func check(t *testing.T, pkg string, fs []*source) (*types.Info, []error) {
	t.Helper()
	exports := exportData(t, pkg)
	fset := token.NewFileSet()
	var asts []*ast.File
	for i := range fs { // again, into one file set
		s, err := parseInto(fset, fs[i].path, fs[i].raw)
		if err != nil {
			t.Fatal(err)
		}
		fs[i], asts = s, append(asts, s.ast)
	}
	var errs []error
	conf := types.Config{
		Error: func(err error) { errs = append(errs, err) },
		Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
			file, ok := exports[path]
			if !ok {
				return nil, fmt.Errorf("no export data of %s", path)
			}
			return os.Open(file)
		}),
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	_, _ = conf.Check(module+"/"+pkg, fset, asts, info) // errors are collected
	return info, errs
}

func exportData(t *testing.T, pkg string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", "./"+pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	m := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		if path, file, ok := strings.Cut(line, "="); ok && file != "" {
			m[path] = file
		}
	}
	return m
}
