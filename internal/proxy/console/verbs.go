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

// Danger is what a verb does to clients.
type Danger string

const (
	Harmless Danger = "none"  // they notice nothing
	Holds    Danger = "holds" // they wait, or are not let in
	Ends     Danger = "ends"  // they are ended
)

// Verb is an order that changes something. Source.Orders carries it out.
type Verb struct {
	Name     string
	Argument Argument
	Danger   Danger
	Right    Right // who may give it
	Sentence string
}

// Verbs are all orders: the one list that the console, the host's socket, the peers'
// port and the command line go by, and what SHOW HELP and `manada proxy --help` show.
var Verbs = []Verb{
	{"PAUSE", Optional, Holds, Admin, "hands out no server connection any more, waits until all are given back and closes them; clients wait"},
	{"RESUME", Optional, Harmless, Admin, "ends PAUSE and KILL"},
	{"DISABLE", Needed, Holds, Admin, "lets no new client in"},
	{"ENABLE", Needed, Harmless, Admin, "ends DISABLE"},
	{"RECONNECT", Optional, Harmless, Admin, "closes each server connection as soon as it is given back"},
	{"WAIT_CLOSE", Optional, Harmless, Admin, "waits until the server connections that RECONNECT or a change left behind are closed"},
	{"KILL", Optional, Ends, Admin, "ends all clients and server connections at once, and holds new ones until RESUME"},
	{"KILL_CLIENT", ClientID, Ends, Admin, "ends one client; its id is in SHOW CLIENTS"},
	{"RELOAD", Nothing, Harmless, Admin, "has the host's configuration read again; no client is disconnected"},
}

// Lookup finds a verb by its name, in any case.
func Lookup(name string) (Verb, bool) {
	for _, v := range Verbs {
		if strings.EqualFold(v.Name, name) {
			return v, true
		}
	}
	return Verb{}, false
}

// check says why a verb cannot be given with these arguments by somebody with a right.
func (v Verb) check(right Right, args []string) *wire.Error {
	bad := func(code, text string) *wire.Error {
		return &wire.Error{Severity: "ERROR", Code: code, Message: text}
	}
	switch {
	case len(args) > 1:
		return bad("42601", v.Name+" takes one argument at most")
	case len(args) == 1 && v.Argument == Nothing:
		return bad("42601", v.Name+" takes no argument")
	case len(args) == 0 && v.Argument == Needed:
		return bad("42601", "a database is required")
	case len(args) == 0 && v.Argument == ClientID:
		return bad("42601", "a client's id is required")
	case right < v.Right:
		e := bad("42501", "permission denied for "+v.Name)
		e.Hint = "Superusers and members of the role manada_admin give orders here."
		return e
	}
	return nil
}

// command is one that was understood.
type command struct {
	tag  string
	show *show                                           // rows, or
	help bool                                            // a notice, or
	run  func(ctx context.Context) (string, *wire.Error) // an order, or nothing at all
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
	if v, ok := Lookup(first); ok && s.Orders[v.Name] != nil {
		if e := v.check(right, list[1:]); e != nil {
			return nil, e
		}
		order, arg := s.Orders[v.Name], strings.Join(list[1:], "")
		return &command{tag: v.Name, run: func(ctx context.Context) (string, *wire.Error) { return order(ctx, arg) }}, nil
	}
	return nil, errSyntax(sql)
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
		if s.Orders[v.Name] != nil {
			fmt.Fprintf(&b, "\n\t%s%s: %s", v.Name, []string{"", " [<db>]", " <db>", " <client_id>"}[v.Argument], v.Sentence)
		}
	}
	return b.String()
}
