package health

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"manada/internal/cluster"
)

// Code names a condition, "M-<area><nn>". A code is never reused and its
// meaning never changes: people grep for it, alert on it and look it up.
// Areas: S store, R roles and replication, P PostgreSQL, B backup and archive,
// C configuration, H host, X proxy.
type Code string

// Entry is a row of the catalogue.
type Entry struct {
	Code     Code
	Severity cluster.Severity
	Title    string // heading of the reference, no placeholders
	// Text is the sentence and Hint what to do next. {node} and the names in
	// Args are replaced by Say; an argument nobody gave reads "unknown".
	Text string
	Hint string
	Args []string
	Doc  string // what it means and what brings it about, for the reference
}

// catalogue is every condition, sorted by area and number.
var catalogue = slices.Concat(storeEntries, roleEntries, postgresEntries, backupEntries, configEntries, hostEntries, proxyEntries)

var byCode = func() map[Code]Entry {
	m := make(map[Code]Entry, len(catalogue))
	for _, e := range catalogue {
		m[e.Code] = e
	}
	return m
}()

// All returns the catalogue, by area and number.
func All() []Entry { return slices.Clone(catalogue) }

// Lookup finds the entry of a code.
func Lookup(code Code) (Entry, bool) {
	e, ok := byCode[code]
	return e, ok
}

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// Say fills in a condition: node is whom it is about ("" when it is about the
// herd), args are pairs of a name out of the entry's Args and its value, in
// the manner of slog. A code outside the catalogue panics: codes are constants
// of this package.
func Say(code Code, node string, args ...any) cluster.Condition {
	e, ok := byCode[code]
	if !ok {
		panic(fmt.Sprintf("health: condition %q is not in the catalogue", code))
	}
	fill := func(s string) string {
		return placeholder.ReplaceAllStringFunc(s, func(p string) string {
			name := p[1 : len(p)-1]
			if name == "node" && node != "" {
				return node
			}
			for i := 0; i+1 < len(args); i += 2 {
				if args[i] == name {
					return fmt.Sprint(args[i+1])
				}
			}
			return "unknown"
		})
	}
	return cluster.Condition{Code: string(e.Code), Severity: e.Severity, Node: node, Text: fill(e.Text), Hint: fill(e.Hint)}
}

func rank(s cluster.Severity) int {
	switch s {
	case cluster.Fatal:
		return 0
	case cluster.Warning:
		return 1
	}
	return 2
}

const areaOrder = "RPSXCBH"

// areaRank is the order in which areas interest a person with a problem.
// Unknown areas (a newer node's) come last.
func areaRank(code string) int {
	if code == string(DiskFull) {
		return -1 // it is what the others come from
	}
	if len(code) > 2 {
		if i := strings.IndexByte(areaOrder, code[2]); i >= 0 {
			return i
		}
	}
	return len(areaOrder)
}

// Sort puts the gravest first, then by area, code and node. What says the same of
// the same node under the same code is said once.
func Sort(cs []cluster.Condition) []cluster.Condition {
	type key struct{ code, node, text string }
	seen := make(map[key]bool, len(cs))
	var out []cluster.Condition
	for _, c := range cs {
		if k := (key{c.Code, c.Node, c.Text}); !seen[k] {
			seen[k] = true
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b cluster.Condition) int {
		return cmp.Or(
			cmp.Compare(rank(a.Severity), rank(b.Severity)),
			cmp.Compare(areaRank(a.Code), areaRank(b.Code)),
			strings.Compare(a.Code, b.Code),
			strings.Compare(a.Node, b.Node))
	})
	return out
}

// Of is the health that conditions amount to.
func Of(cs []cluster.Condition) cluster.Health {
	h := cluster.HealthOK
	for _, c := range cs {
		switch c.Severity {
		case cluster.Fatal:
			return cluster.HealthDown
		case cluster.Warning:
			h = cluster.HealthDegraded
		}
	}
	return h
}

// ExitCode is the exit code of `manada status --check`: 0 ok, 3 degraded,
// 4 no primary that acknowledges writes.
func ExitCode(s cluster.Status) int {
	switch {
	case s.Health == cluster.HealthDown || s.Primary == "":
		return 4
	case s.Health != cluster.HealthOK:
		return 3
	}
	return 0
}
