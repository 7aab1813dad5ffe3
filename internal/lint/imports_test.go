package lint

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport says which of our packages a package may import; one that is not
// named may import all that forbidden does not rule out.
var mayImport = map[string][]string{
	"internal/cluster":    {},
	"internal/decide":     {"internal/cluster"},
	"internal/health":     {"internal/cluster"},
	"internal/durable":    {},
	"internal/verb":       {},
	"internal/repo":       {"internal/cluster", "internal/blob"},
	"internal/blob":       {"internal/durable"},
	"internal/pki":        {"internal/cluster", "internal/durable"},
	"internal/proxy/conv": {"internal/cluster", "internal/proxy/wire", "internal/proxy/classify"},
	"cmd/manada":          {"internal/cli", "internal/compat"},
}

// onlyFor names the packages that alone may import a package.
var onlyFor = []struct {
	pkg string
	who []string // patterns of path.Match
	why string
}{
	// process is the wiring: it fills in the agent's decide.Spec.
	{"internal/decide", []string{"internal/agent", "internal/process", "test/*"}, "only the agent asks for decisions; what others show is in the beat's reason"},
	{"internal/cli", []string{"cmd/*", "internal/compat", "internal/compat/*", "test/*"}, "the command line is the outermost ring"},
	{"internal/lint", nil, "it holds tests only"},
}

// imports: arrows point inward. Tests of a package may use more.
func imports(s *source) []string {
	var out []string
	if s.testish() {
		return nil
	}
	for _, i := range s.ast.Imports {
		full, _ := strconv.Unquote(i.Path.Value)
		ours, ok := strings.CutPrefix(full, module+"/")
		if !ok {
			continue
		}
		if allowed, limited := mayImport[s.pkg()]; limited && !slices.ContainsFunc(allowed, func(a string) bool { return within(ours, a) }) {
			out = append(out, s.at(i.Pos(), "%s may import %v of ours, not %s", s.pkg(), allowed, ours))
		}
		for _, o := range onlyFor {
			if within(ours, o.pkg) && !within(s.pkg(), o.pkg) && !slices.ContainsFunc(o.who, func(p string) bool { ok, _ := path.Match(p, s.pkg()); return ok }) {
				out = append(out, s.at(i.Pos(), "%s must not import %s: %s", s.pkg(), ours, o.why))
			}
		}
	}
	return out
}

// within says whether a package is parent or below it.
func within(pkg, parent string) bool { return pkg == parent || strings.HasPrefix(pkg, parent+"/") }

func TestImports(t *testing.T) { holds(t, imports) }
