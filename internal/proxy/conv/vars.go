package conv

import (
	"slices"
	"strings"
)

// setting is a value that a client has given to one of PostgreSQL's settings, as
// the statement that gives it.
type setting struct{ name, sql string }

// vars are the settings of a client, or of a link, that differ from what the
// server gave at log-in, in the order in which they were made.
type vars []setting

func (v vars) get(name string) string {
	for _, s := range v {
		if s.name == name {
			return s.sql
		}
	}
	return ""
}

// same says whether two are one.
func same(a, b vars) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// with is v with one more setting; sql "" takes it away. v is not changed.
func (v vars) with(name, sql string) vars {
	out := make(vars, 0, len(v)+1)
	for _, s := range v {
		if s.name != name {
			out = append(out, s)
		}
	}
	if sql != "" {
		out = append(out, setting{name, sql})
	}
	return out
}

// become is what has to be said to a session with the settings v to make them want.
func (v vars) become(want vars) string {
	if len(v) == 0 && len(want) == 0 || slices.Equal(v, want) {
		return ""
	}
	var b strings.Builder
	for _, s := range v {
		if want.get(s.name) == "" {
			b.WriteString("RESET " + identifier(s.name) + "\n;")
		}
	}
	for _, s := range want {
		if v.get(s.name) != s.sql {
			b.WriteString(s.sql + "\n;") // the text may end in a comment
		}
	}
	return b.String()
}

// identifier quotes the name of a setting.
func identifier(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}

// giving is the statement that gives a setting a value.
func giving(name, value string) string {
	return "SELECT pg_catalog.set_config(" + literal(name) + "," + literal(value) + ",false)"
}

// literal quotes a text for a session with standard_conforming_strings.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
