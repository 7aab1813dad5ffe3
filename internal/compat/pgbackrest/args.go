package pgbackrest

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"manada/internal/config"
)

// line is a command line.
type line struct {
	command command
	params  []string
	values  map[string]*value // by the options' names, of the first repository and database
}

// value is what an option was given, and where.
type value struct {
	option Option
	index  int
	texts  []string
	typed  bool // on the command line
}

func unknownCommand(name string) error {
	hint := "commands: " + strings.Join(commandNames, ", ")
	if other, ok := elsewhere[name]; ok {
		if other != "" {
			hint = other
		}
		return fail(codeCommandInvalid, hint, "command '%s' is not supported by Manada", name)
	}
	if n := config.Nearest(name, commandNames); n != "" {
		hint = "did you mean " + n + "?"
	}
	return fail(codeCommandInvalid, hint, "invalid command '%s'", name)
}

// parseArgs reads a command line: options stand before the command or behind it.
func parseArgs(args []string) (line, error) {
	l := line{values: map[string]*value{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case strings.HasPrefix(arg, "--") && len(arg) > 2:
			used, err := l.option(arg[2:], args[i+1:])
			if err != nil {
				return l, err
			}
			i += used
		case strings.HasPrefix(arg, "-") && len(arg) > 1:
			return l, fail(codeOptionInvalid, "", "option '%s' must begin with --", arg)
		case l.command.name == "":
			c, ok := commandOf(arg)
			if !ok {
				return l, unknownCommand(arg)
			}
			l.command = c
		case !l.command.params:
			return l, fail(codeParamInvalid, "", "command does not allow parameters")
		default:
			l.params = append(l.params, arg)
		}
	}
	if l.command.name == "" && len(args) > 0 {
		return l, fail(codeCommandRequired, "commands: "+strings.Join(commandNames, ", "), "no command found")
	}
	return l, nil
}

// option takes one option; used says whether it took the next argument too.
func (l *line) option(text string, rest []string) (used int, err error) {
	name, val, given := strings.Cut(text, "=")
	o, index, known := find(name)
	if !known && strings.HasPrefix(name, "no-") {
		if o, index, known = find(strings.TrimPrefix(name, "no-")); known {
			switch {
			case o.kind != boolean:
				return 0, fail(codeOptionInvalid, "", "option '%s' cannot be negated", name)
			case given:
				return 0, fail(codeOptionInvalid, "", "option '%s' does not allow an argument", name)
			}
			return 0, l.put(o, index, "n", true)
		}
	}
	if !known && strings.HasPrefix(name, "reset-") {
		return 0, fail(codeOptionInvalid, "leave the option out of the configuration file", "option '--%s' is not supported by Manada", name)
	}
	if !known {
		hint := ""
		if n := config.Nearest(name, optionNames()); n != "" {
			hint = "did you mean --" + n + "?"
		}
		return 0, fail(codeOptionInvalid, hint, "invalid option '--%s'", text)
	}
	if o.secret {
		return 0, fail(codeOptionInvalid, "this option could expose secrets in the process list.", "option '%s' is not allowed on the command-line", name)
	}
	switch {
	case o.kind == boolean && !given:
		val = "y"
	case o.kind == boolean && val != "y" && val != "n":
		return 0, fail(codeOptionValue, "", "boolean option '--%s' argument must be 'y' or 'n'", name)
	case o.kind != boolean && !given:
		if len(rest) == 0 {
			return 0, fail(codeOptionInvalid, "", "option '--%s' requires an argument", name)
		}
		val, used = rest[0], 1
	}
	return used, l.put(o, index, val, true)
}

func (l *line) put(o Option, index int, val string, typed bool) error {
	if index > 1 {
		if why := o.objection(index, val); why != "" {
			return refuse(o, index, val, why)
		}
		return nil // a second database host: not needed
	}
	had := l.values[o.Name]
	switch {
	case had == nil:
		l.values[o.Name] = &value{o, index, []string{val}, typed}
	case typed && o.kind != many:
		return fail(codeOptionInvalid, "", "option '%s' cannot be set multiple times", o.written())
	case typed:
		had.texts = append(had.texts, val)
	}
	return nil
}

func refuse(o Option, index int, val, why string) error {
	name := o.written()
	if index > 1 {
		name = strings.Replace(name, "1", strconv.Itoa(index), 1)
	}
	return fail(codeOptionInvalid, "", "option '%s' with value '%s' is not supported by Manada: %s", name, val, why)
}

// fromEnvironment takes PGBACKREST_REPO1_PATH and the like, below what was typed.
func (f *face) fromEnvironment(environ []string) {
	slices.Sort(environ)
	for _, e := range environ {
		name, val, _ := strings.Cut(e, "=")
		rest, ok := strings.CutPrefix(name, "PGBACKREST_")
		if !ok || val == "" {
			continue
		}
		written := strings.ReplaceAll(strings.ToLower(rest), "_", "-")
		o, index, known := find(written)
		if !known {
			f.log.warn("environment contains invalid option '%s'", written)
			continue
		}
		if f.values[o.Name] == nil && o.takes(f.command.name) && index <= 1 {
			f.values[o.Name] = &value{o, index, []string{val}, false}
		}
	}
}

// files are where the configuration is when --config does not say.
var files = []string{"/etc/pgbackrest/pgbackrest.conf", "/etc/pgbackrest.conf"}

// fromFile takes the configuration file, below the environment.
func (f *face) fromFile() error {
	names := files
	if v := f.text("config"); v != "" {
		names = []string{v}
	}
	for _, name := range names {
		r, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fail(codeFileMissing, "", "unable to open file '%s' for read: %v", name, errors.Unwrap(err))
		}
		defer r.Close()
		if f.conf, err = parse(r, name); err != nil {
			return err
		}
		if len(f.conf.problems) > 0 {
			return fail(codeOptionInvalid, f.conf.problems[0].Hint, "%s", f.conf.problems[0])
		}
		for key, e := range f.conf.effective(f.text("stanza"), f.command.name) {
			if f.values[key] == nil && e.option.takes(f.command.name) {
				f.values[key] = &value{e.option, e.index, []string{e.value}, false}
			}
		}
		return nil
	}
	if v := f.text("config"); v != "" {
		return fail(codeFileMissing, "", "unable to open missing file '%s' for read", v)
	}
	return nil
}

// complete judges the options by the command.
func (f *face) complete() error {
	c := f.command
	for _, name := range f.names() {
		v := f.values[name]
		shown := v.option.written()
		if !v.option.takes(c.name) {
			return fail(codeOptionInvalid, "", "option '%s' not valid for command '%s'", shown, c.name)
		}
		for _, t := range v.texts {
			if why := v.option.objection(v.index, t); why != "" {
				return refuse(v.option, v.index, t, why)
			}
			if what, want := v.option.check(t); what != "" {
				hint := ""
				if want != "" {
					hint = "allowed: " + want
				}
				return fail(codeOptionValue, hint, "'%s' is not allowed for '%s' option", t, shown)
			}
		}
	}
	if c.stanza && f.text("stanza") == "" {
		return fail(codeOptionRequired, "", "%s command requires option: stanza", c.name)
	}
	if f.text("set") != "" && f.text("stanza") == "" {
		return fail(codeOptionInvalid, "", "option 'set' not valid without option 'stanza'")
	}
	return f.checkType()
}

var types = map[string][]string{
	"backup": {"full", "diff", "incr"}, "info": {"full", "diff", "incr"},
	"restore": {"default", "immediate", "lsn", "name", "none", "standby", "time", "xid"},
}

func (f *face) checkType() error {
	kind := f.text("type")
	if kind == "" {
		kind = "default"
	} else if !contains(types[f.command.name], kind) {
		hint := "allowed: " + strings.Join(types[f.command.name], ", ")
		if kind == "preserve" {
			hint = "the recovery settings of a restored copy are always written anew"
		}
		return fail(codeOptionValue, hint, "'%s' is not allowed for 'type' option", kind)
	}
	targeted := contains([]string{"lsn", "name", "time", "xid"}, kind)
	switch {
	case f.command.name != "restore":
	case targeted && f.text("target") == "":
		return fail(codeOptionRequired, "", "restore command requires option: target")
	case !targeted && f.text("target") != "":
		return fail(codeOptionInvalid, "", "option 'target' not valid without option 'type' in ('lsn', 'name', 'time', 'xid')")
	}
	return nil
}

// text is the value of an option, "" when it was not given.
func (l *line) text(name string) string {
	if v := l.values[name]; v != nil {
		return v.texts[0]
	}
	return ""
}

func (l *line) on(name string) bool { return l.text(name) == "y" }

func (l *line) num(name string) int {
	n, _ := strconv.Atoi(l.text(name)) // judged already
	return n
}

// pairs are the values of an option of KEY=VALUE.
func (l *line) pairs(name string) (map[string]string, error) {
	v := l.values[name]
	if v == nil {
		return nil, nil
	}
	out := map[string]string{}
	for _, t := range v.texts {
		k, val, ok := strings.Cut(t, "=")
		if !ok || k == "" {
			return nil, fail(codeOptionInvalid, "write it as KEY=VALUE", "key/value '%s' not valid for '%s' option", t, v.option.written())
		}
		out[k] = val
	}
	return out, nil
}

func (l *line) names() []string {
	var names []string
	for n := range l.values {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// said is the options as the begin of the log shows them.
func (l *line) said() string {
	var b strings.Builder
	if len(l.params) > 0 {
		b.WriteString(" [" + strings.Join(l.params, ", ") + "]")
	}
	for _, n := range l.names() {
		v := l.values[n]
		for _, t := range v.texts {
			switch {
			case v.option.secret:
				t = "=<redacted>"
			case v.option.kind != boolean:
				t = "=" + t
			case t == "n":
				b.WriteString(" --no-" + v.option.written())
				continue
			default:
				t = ""
			}
			b.WriteString(" --" + v.option.written() + t)
		}
	}
	return b.String()
}
