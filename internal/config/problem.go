package config

import (
	"fmt"
	"strings"
)

// Origin is where a value came from.
type Origin struct {
	Source string `json:"source"`         // "default", "file" or "env"
	Line   int    `json:"line,omitempty"` // of the file
	Env    string `json:"env,omitempty"`  // name of the variable
}

// String is "default", "line 12" or the variable's name.
func (o Origin) String() string {
	switch o.Source {
	case "file":
		return fmt.Sprintf("line %d", o.Line)
	case "env":
		return "$" + o.Env
	}
	return o.Source
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Where string `json:"where"` // "FILE:LINE", "FILE" or "$VARIABLE"
	Key   string `json:"key"`   // "timing.beat"; empty when it is about the file
	What  string `json:"what"`  // what is wrong
	Want  string `json:"want,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// String is one line: where: key: what (want ...).
func (p Problem) String() string {
	var b strings.Builder
	for _, s := range []string{p.Where, p.Key} {
		if s != "" {
			b.WriteString(s + ": ")
		}
	}
	b.WriteString(p.What)
	if p.Want != "" {
		b.WriteString(" (expected " + p.Want + ")")
	}
	return b.String()
}

// Problems are all that is wrong with a configuration; an error when there is
// one.
type Problems []Problem

// Error lists them, one per line, each followed by its hint.
func (ps Problems) Error() string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
		if p.Hint != "" {
			b.WriteString("\n  hint: " + p.Hint)
		}
	}
	return b.String()
}

// OrNil is an error only where there is a problem.
func (ps Problems) OrNil() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}
