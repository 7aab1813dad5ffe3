package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "manada"

// root is the folder of go.mod, two above this package.
const root = "../.."

// source is one parsed Go file of the tree.
type source struct {
	path string // slash-separated, relative to root
	raw  []byte
	fset *token.FileSet
	ast  *ast.File
}

func (s *source) pkg() string  { return filepath.ToSlash(filepath.Dir(s.path)) }
func (s *source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }
func (s *source) isMain() bool { return s.ast.Name.Name == "main" }

// testish: tests, packages that only tests use (storetest, pgtest, or whatever
// imports testing), and benches, which start what they measure.
func (s *source) testish() bool {
	if s.isTest() || strings.HasPrefix(s.path, "test/") || strings.HasPrefix(s.path, "bench/") || strings.HasSuffix(s.pkg(), "test") {
		return true
	}
	return s.imports()["testing"] == "testing"
}

// at is a finding in a form that editors jump to.
func (s *source) at(pos token.Pos, format string, args ...any) string {
	p := s.fset.Position(pos)
	return fmt.Sprintf("%s:%d: %s", s.path, p.Line, fmt.Sprintf(format, args...))
}

// imports maps the name under which each import is known in the file to its path.
func (s *source) imports() map[string]string {
	m := map[string]string{}
	for _, i := range s.ast.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		name := path[strings.LastIndex(path, "/")+1:]
		if dir, major, ok := strings.Cut(path, "/v"); ok && strings.Trim(major, "0123456789") == "" {
			name = dir[strings.LastIndex(dir, "/")+1:] // "pgx/v5" is pgx
		}
		if i.Name != nil {
			name = i.Name.Name
		}
		m[name] = path
	}
	return m
}

// call is the function that a call names, "time.Now", by the import's path and
// not by what the file calls it. Empty for anything but pkg.Func.
func (s *source) call(c *ast.CallExpr) string {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok || id.Obj != nil { // a local variable of the same name
		return ""
	}
	if path := s.imports()[id.Name]; path != "" {
		return path + "." + sel.Sel.Name
	}
	return ""
}

func parse(path string, raw []byte) (*source, error) {
	return parseInto(token.NewFileSet(), path, raw)
}

func parseInto(fset *token.FileSet, path string, raw []byte) (*source, error) {
	f, err := parser.ParseFile(fset, path, raw, parser.ParseComments)
	return &source{path: path, raw: raw, fset: fset, ast: f}, err
}

// files are all files that are, or are about to be, in the repository.
var files = sync.OnceValues(func() ([]string, error) {
	out, err := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil { // an unpacked archive without git
		return walk()
	}
	var list []string
	for _, p := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		if st, err := os.Lstat(filepath.Join(root, p)); err == nil && st.Mode().IsRegular() {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
})

func walk() ([]string, error) {
	var list []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			list = append(list, filepath.ToSlash(rel))
		}
		return nil
	})
	return list, err
}

// read gives a file's content; ok is false for one that went away meanwhile or
// that is not text.
func read(t *testing.T, path string) (raw []byte, ok bool) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, path))
	if os.IsNotExist(err) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw, !bytes.ContainsRune(raw[:min(len(raw), 8000)], 0)
}

func allFiles(t *testing.T) []string {
	t.Helper()
	list, err := files()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("only %d files found under %s", len(list), root)
	}
	return list
}

var parsed = sync.OnceValues(func() ([]*source, []string) {
	list, err := files()
	if err != nil {
		return nil, []string{err.Error()}
	}
	var out []*source
	var bad []string
	for _, p := range list {
		if !strings.HasSuffix(p, ".go") || strings.Contains("/"+p, "/testdata/") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(root, p))
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			var s *source
			if s, err = parse(p, raw); err == nil {
				out = append(out, s)
				continue
			}
		}
		bad = append(bad, fmt.Sprintf("%s: %v", p, err))
	}
	return out, bad
})

// sources are all Go files of the tree, parsed once.
func sources(t *testing.T) []*source {
	t.Helper()
	out, bad := parsed()
	for _, b := range bad {
		t.Error(b)
	}
	return out
}

// rule looks at one file and says what is wrong with it.
type rule func(*source) []string

// holds applies a rule to every file.
func holds(t *testing.T, r rule) {
	t.Helper()
	for _, s := range sources(t) {
		for _, f := range r(s) {
			t.Error(f)
		}
	}
}
