package health

import (
	"fmt"
	"strings"

	"manada/internal/cluster"
)

var areas = []struct{ letter, title, intro string }{
	{"S", "The store", "The voters that hold the term record."},
	{"R", "Roles and replication", "Who leads, who follows, and what commits wait for."},
	{"P", "PostgreSQL", "The database processes of one node."},
	{"B", "Backups and the archive", "What could be restored."},
	{"C", "Configuration", "Settings, and what an operator has switched off."},
	{"H", "Hosts", "What the herd stands on."},
	{"X", "Proxies", "The SQL entry points."},
}

// Reference is docs/reference-conditions.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, a := range areas {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", a.title, a.intro)
		for _, e := range catalogue {
			if string(e.Code[2]) == a.letter {
				b.WriteString(e.reference())
			}
		}
	}
	return b.String()
}

func (e Entry) reference() string {
	show := func(s string) string {
		return placeholder.ReplaceAllStringFunc(s, func(p string) string { return strings.ToUpper(p[1 : len(p)-1]) })
	}
	return fmt.Sprintf("\n### %s: %s\n\n*%s.* `%s`\n\n%s\n\n**What to do:** %s.\n",
		e.Code, e.Title, severityWord(e.Severity), show(e.Text), e.Doc, code(strings.TrimSuffix(show(e.Hint), ".")))
}

// code marks the commands that two blanks set off from the prose.
func code(s string) string {
	parts := strings.Split(s, "  ")
	for i, p := range parts {
		if strings.HasPrefix(p, "manada ") || strings.HasPrefix(p, "ALTER ") {
			cmd, rest, _ := strings.Cut(p, " ;")
			parts[i] = "`" + cmd + "`" + optional(";", rest)
		}
	}
	return strings.Join(parts, " ")
}

func severityWord(s cluster.Severity) string {
	switch s {
	case cluster.Fatal:
		return "Down"
	case cluster.Warning:
		return "Degraded"
	}
	return "For information"
}

const referenceHead = `# Conditions

<!-- Generated from internal/health: go test ./internal/health -run TestReference -update -->

A condition is something about the herd that a person should know. The same code stands in
` + "`manada status`" + `, in the log, in the metric ` + "`manada_condition`" + ` and on this page. Codes are never reused.

| severity | health | ` + "`manada status --check`" + ` exits with |
|---|---|---|
| fatal | down: no primary acknowledges writes | 4 |
| warning | degraded: writes work, protection is less than was asked for | 3 |
| info | ok | 0 |

Words in capitals stand for what the sentence names: NODE is the node it is about.
`
