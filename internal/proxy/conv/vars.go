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

// custom says whether a setting is an application's or an extension's: it is there,
// empty, from the first time that somebody names it.
func custom(name string) bool { return strings.Contains(name, ".") }

// reset is what RESET ALL makes of v in a session that began with first.
func (v vars) reset(first vars) vars {
	out := first
	for _, s := range v {
		if custom(s.name) && first.get(s.name) == "" {
			out = out.with(s.name, "RESET "+identifier(s.name))
		}
	}
	return out
}

// identifier quotes the name of a setting.
func identifier(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}

// giving is the statement that gives a setting a value. It takes no snapshot, but for
// lists of names, which only set_config takes in one piece.
func giving(name, value string) string {
	switch name {
	case "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries":
		return "SELECT pg_catalog.set_config(" + literal(name) + "," + literal(value) + ",false)"
	}
	return "SET " + identifier(name) + " TO " + literal(value)
}

// forTransaction is what giving has said, for the transaction only.
func forTransaction(sql string) string {
	if value, ok := strings.CutPrefix(sql, "SET "); ok {
		return "SET LOCAL " + value
	}
	return strings.TrimSuffix(sql, ",false)") + ",true)"
}

// literal quotes a text, however the session takes backslashes.
func literal(s string) string {
	s = "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, "\\") {
		return " E" + strings.ReplaceAll(s, "\\", "\\\\")
	}
	return s
}
