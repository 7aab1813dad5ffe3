package console

import (
	"context"
	"fmt"
	"strings"

	"manada/internal/proxy/wire"
	"manada/internal/verb"
)

// check says why a verb cannot be given with these arguments by somebody with a right.
func check(v verb.Verb, right Right, args []string) *wire.Error {
	bad := func(code, text string) *wire.Error {
		return &wire.Error{Severity: "ERROR", Code: code, Message: text}
	}
	switch {
	case len(args) > 1:
		return bad("42601", v.Word()+" takes one argument at most")
	case len(args) == 1 && len(v.Arguments) == 0:
		return bad("42601", v.Word()+" takes no argument")
	case len(args) == 0 && len(v.Arguments) > 0 && v.Arguments[0].Needed && v.Arguments[0].As == "ID":
		return bad("42601", "a client's id is required")
	case len(args) == 0 && len(v.Arguments) > 0 && v.Arguments[0].Needed:
		return bad("42601", "a database is required")
	case right < Admin:
		e := bad("42501", "permission denied for "+v.Word())
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
	if v, ok := verb.Order(first); ok && s.Orders[v.Word()] != nil {
		if e := check(v, right, list[1:]); e != nil {
			return nil, e
		}
		order, arg := s.Orders[v.Word()], strings.Join(list[1:], "")
		return &command{tag: v.Word(), run: func(ctx context.Context) (string, *wire.Error) { return order(ctx, arg) }}, nil
	}
	if e := elsewhere(s, list); e != nil {
		return nil, e
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
		if t.wired(s) && !t.hidden {
			names = append(names, t.name)
		}
	}
	fmt.Fprintf(&b, "\n\tSHOW HELP|%s", strings.Join(names, "|"))
	for _, v := range verb.Orders {
		if s.Orders[v.Word()] != nil {
			fmt.Fprintf(&b, "\n\t%s%s: %s", v.Word(), takes(v, map[string]string{"DATABASE": "db", "ID": "client_id"}, "<", ">"), v.Sentence)
		}
	}
	return b.String()
}

// takes is what a verb wants behind it, as a help writes it.
func takes(v verb.Verb, names map[string]string, open, end string) string {
	if len(v.Arguments) == 0 {
		return ""
	}
	what := open + names[v.Arguments[0].As] + end
	if !v.Arguments[0].Needed {
		what = "[" + what + "]"
	}
	return " " + what
}
