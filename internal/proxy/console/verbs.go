package console

import (
	"context"
	"fmt"
	"strings"

	"manada/internal/proxy/wire"
)

// Argument says what a verb wants behind it.
type Argument uint8

const (
	Nothing  Argument = iota
	Optional          // a database; without one it is for all
	Needed            // a database
	ClientID          // that of a client
)

// Verb is an order that changes something. The list is what HELP shows and what the
// console takes.
type Verb struct {
	Name     string
	Argument Argument
	Ends     bool // it ends connections
	Sentence string

	run func(*Source) func(context.Context, string) *wire.Error // nil: the source cannot
}

type order = func(context.Context, string) *wire.Error

// Verbs are all orders.
var Verbs = []Verb{
	{"PAUSE", Optional, false, "hands out no server connection any more, waits until all are given back and closes them; clients wait", func(s *Source) order { return s.Pause }},
	{"RESUME", Optional, false, "ends PAUSE and KILL", func(s *Source) order { return s.Resume }},
	{"DISABLE", Needed, false, "lets no new client in", func(s *Source) order { return s.Disable }},
	{"ENABLE", Needed, false, "ends DISABLE", func(s *Source) order { return s.Enable }},
	{"RECONNECT", Optional, false, "closes each server connection as soon as it is given back", func(s *Source) order { return s.Reconnect }},
	{"WAIT_CLOSE", Optional, false, "waits until the server connections that RECONNECT or a change left behind are closed", func(s *Source) order { return s.WaitClose }},
	{"KILL", Optional, true, "ends all clients and server connections at once, and holds new ones until RESUME", func(s *Source) order { return s.Kill }},
	{"KILL_CLIENT", ClientID, true, "ends one client; its id is in SHOW CLIENTS", func(s *Source) order { return s.KillClient }},
	{"RELOAD", Nothing, false, "reads the configuration again", func(s *Source) order { return s.Reload }},
}

// command is one that was understood.
type command struct {
	tag  string
	show *show                                 // rows, or
	help bool                                  // a notice, or
	run  func(ctx context.Context) *wire.Error // an order, or nothing at all
}

func errSyntax(sql string) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "42601", Message: fmt.Sprintf("invalid command '%s', use SHOW HELP;", strings.TrimSpace(sql))}
}

// parse understands a command, for somebody with a right. An empty one is nil.
func parse(s *Source, right Right, sql string) (*command, *wire.Error) {
	list, ok := words(sql)
	switch {
	case !ok:
		return nil, errSyntax(sql)
	case len(list) == 0:
		return nil, nil
	}
	first := strings.ToUpper(list[0])
	switch {
	case first == "SHOW" && len(list) == 2 && strings.EqualFold(list[1], "HELP"):
		return &command{tag: "SHOW", help: true}, nil
	case first == "SHOW" && len(list) == 2:
		if t := find(s, list[1]); t != nil {
			return &command{tag: "SHOW", show: t}, nil
		}
	case first == "SET" && len(list) > 1 && ofDriver(list[1]):
		return &command{tag: "SET"}, nil
	}
	for _, v := range Verbs {
		if v.Name == first {
			return v.command(s, right, list[1:], sql)
		}
	}
	return nil, errSyntax(sql)
}

func (v Verb) command(s *Source, right Right, args []string, sql string) (*command, *wire.Error) {
	run := v.run(s)
	switch {
	case run == nil, len(args) > 1, len(args) == 1 && v.Argument == Nothing:
		return nil, errSyntax(sql)
	case len(args) == 0 && v.Argument == Needed:
		return nil, &wire.Error{Severity: "ERROR", Code: "42601", Message: "a database is required"}
	case len(args) == 0 && v.Argument == ClientID:
		return nil, &wire.Error{Severity: "ERROR", Code: "42601", Message: "a client's id is required"}
	case right < Admin:
		return nil, &wire.Error{Severity: "ERROR", Code: "42501", Message: "permission denied for " + v.Name,
			Hint: "Superusers and members of the role manada_admin give orders here."}
	}
	arg := strings.Join(args, "")
	return &command{tag: v.Name, run: func(ctx context.Context) *wire.Error { return run(ctx, arg) }}, nil
}

// ofDriver says whether drivers set a setting when they connect, by themselves.
func ofDriver(name string) bool {
	switch strings.ToLower(strings.TrimRight(name, "=")) {
	case "extra_float_digits", "application_name", "client_encoding", "datestyle", "standard_conforming_strings", "client_min_messages", "timezone", "session":
		return true
	}
	name, _, found := strings.Cut(name, "=")
	return found && ofDriver(name)
}

// words cuts a command into words; quotes keep a word as it is. A semicolon may
// end it, and comments may stand before it. It is false when that cannot be done.
func words(sql string) (list []string, ok bool) {
	for sql = strings.TrimSpace(sql); sql != ""; sql = strings.TrimSpace(sql) {
		switch {
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			var ends bool
			if _, sql, ends = strings.Cut(sql, "*/"); !ends {
				return nil, false
			}
		case sql[0] == ';':
			rest := strings.TrimLeft(sql, "; \t\r\n")
			return list, rest == "" || strings.HasPrefix(rest, "--") && !strings.Contains(rest, "\n")
		case sql[0] == '"' || sql[0] == '\'':
			end := strings.IndexByte(sql[1:], sql[0])
			if end < 1 {
				return nil, false
			}
			list, sql = append(list, sql[1:1+end]), sql[2+end:]
		default:
			n := strings.IndexAny(sql, " \t\r\n;\"'")
			if n < 0 {
				n = len(sql)
			}
			if n == 0 {
				return nil, false
			}
			list, sql = append(list, sql[:n]), sql[n:]
		}
	}
	return list, true
}

// help is what SHOW HELP says.
func help(s *Source) string {
	var b strings.Builder
	var names []string
	for _, t := range shows {
		if t.wired(s) {
			names = append(names, t.name)
		}
	}
	fmt.Fprintf(&b, "\n\tSHOW HELP|%s", strings.Join(names, "|"))
	for _, v := range Verbs {
		if v.run(s) != nil {
			fmt.Fprintf(&b, "\n\t%s%s: %s", v.Name, []string{"", " [<db>]", " <db>", " <client_id>"}[v.Argument], v.Sentence)
		}
	}
	return b.String()
}
