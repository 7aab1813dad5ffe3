package wire

import "strings"

// ForServer turns a client's start-up parameters into those sent to
// PostgreSQL: protocol options are dropped, a client_min_messages above warning
// is lowered to warning (the warning that a commit was not replicated must
// reach the proxy, finding H9), and settings of extra that the client did not
// set itself are added.
//
// What a role or database sets by default arrives as an extra (package session),
// and a later SET is rewritten (package split).
func ForServer(params []Param, extra ...Param) []Param {
	out := make([]Param, 0, len(params)+len(extra)+1)
	for _, p := range params {
		switch {
		case strings.HasPrefix(p.Name, "_pq_."):
			continue
		case strings.EqualFold(p.Name, "client_min_messages") && aboveWarning(p.Value):
			p.Value = "warning"
		case p.Name == "options":
			// A later setting of the same packet wins over the options.
			if v, ok := optionSetting(p.Value, "client_min_messages"); ok && aboveWarning(v) {
				p.Value += " -c client_min_messages=warning"
			}
		}
		out = append(out, p)
	}
	for _, e := range extra {
		if !sets(params, e.Name) {
			out = append(out, e)
		}
	}
	return out
}

// HidesWarnings says whether start-up parameters set client_min_messages, and so
// that the client gets no warnings.
func HidesWarnings(params []Param) (hides, set bool) {
	for _, p := range params {
		v, ok := p.Value, strings.EqualFold(p.Name, "client_min_messages")
		if p.Name == "options" {
			v, ok = optionSetting(p.Value, "client_min_messages")
		}
		if ok && (!set || p.Name != "options") { // the options come first, wherever they stand
			hides, set = aboveWarning(v), true
		}
	}
	return hides, set
}

// Given are the values that start-up parameters give a setting, in their order.
func Given(params []Param, name string) []string {
	var out []string
	for _, p := range params {
		if strings.EqualFold(p.Name, name) {
			out = append(out, p.Value)
		}
		if p.Name == "options" {
			if v, ok := optionSetting(p.Value, name); ok {
				out = append(out, v)
			}
		}
	}
	return out
}

func sets(params []Param, name string) bool {
	for _, p := range params {
		if strings.EqualFold(p.Name, name) {
			return true
		}
		if p.Name == "options" {
			if _, ok := optionSetting(p.Value, name); ok {
				return true
			}
		}
	}
	return false
}

func aboveWarning(level string) bool {
	switch strings.ToLower(level) {
	case "error", "fatal", "panic":
		return true
	}
	return false
}

// optionSetting finds the last value of a setting in an options string
// (-c name=value, -cname=value, --name=value; PostgreSQL takes - for _).
func optionSetting(options, name string) (value string, ok bool) {
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		w, set := words[i], ""
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			set = words[i]
		case strings.HasPrefix(w, "--"):
			set = w[2:]
		case strings.HasPrefix(w, "-c"):
			set = w[2:]
		}
		n, v, found := strings.Cut(set, "=")
		if found && strings.EqualFold(strings.ReplaceAll(n, "-", "_"), name) {
			value, ok = v, true
		}
	}
	return value, ok
}

// splitOptions splits as PostgreSQL's pg_split_opts: at white space, with a
// backslash taking the next character as it is.
func splitOptions(s string) []string {
	var words []string
	var w strings.Builder
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			w.WriteByte(s[i])
			in = true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f':
			if in {
				words = append(words, w.String())
				w.Reset()
				in = false
			}
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, w.String())
	}
	return words
}
