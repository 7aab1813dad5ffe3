package pgbackrest

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"manada/internal/config"
)

// Settings are what a pgbackrest.conf asks of a herd. What it does not say is
// zero.
type Settings struct {
	Stanza           string // the name of its only stanza section
	RepoPath         string
	RetentionFull    int
	RetentionDiff    int
	RetentionArchive int // full backups whose WAL is kept whole
	Compress         string
	CompressLevel    int
	Processes        int
	StartFast        *bool
	PGPath           string // of the stanza's database: where a restore goes
	LogLevelConsole  string // of the command line
}

// Key is a key of Manada's own configuration with its value.
type Key struct{ Name, Value string }

// Keys are the settings as keys of the section backup, in the order of the
// documentation; those that were not given are not there. Every host of the herd
// wants the same.
func (s Settings) Keys() []Key {
	var out []Key
	add := func(name, value string) {
		if value != "" && value != "0" {
			out = append(out, Key{"backup." + name, value})
		}
	}
	add("stanza", s.Stanza)
	add("repo_path", s.RepoPath)
	add("retention_full", strconv.Itoa(s.RetentionFull))
	add("retention_diff", strconv.Itoa(s.RetentionDiff))
	add("retention_archive", strconv.Itoa(s.RetentionArchive))
	add("compress", s.Compress)
	add("compress_level", strconv.Itoa(s.CompressLevel))
	add("processes", strconv.Itoa(s.Processes))
	if s.StartFast != nil {
		add("start_fast", strconv.FormatBool(*s.StartFast))
	}
	return out
}

// Translate reads a pgbackrest.conf; name is the file's, for messages. Options
// that have no effect here, because the hosts of the herd reach each other
// without them or because Manada always does what they ask for, are warnings.
// Whatever changes what a backup is and is not supported (encryption, object
// stores, a second repository), what no pgBackRest knows and what is not well
// formed are errors, of the type config.Problems, each with file and line.
//
// It reads [global], the one stanza's section, and of each the part for a
// command ([global:backup]), which wins: of backup for what a backup is made
// with, of expire for the retention.
func Translate(r io.Reader, name string) (Settings, []config.Problem, error) {
	f, err := parse(r, name)
	if err != nil {
		return Settings{}, nil, err
	}
	var s Settings
	stanzas := f.stanzas()
	switch {
	case len(stanzas) > 1:
		f.fail(stanzas[1].line, "["+stanzas[1].name+"]", "a second stanza: a herd has one, and this file names "+stanzas[0].name+" too", "one section for a stanza", "")
	case len(stanzas) == 1:
		s.Stanza = stanzas[0].name
		if !stanzaName.MatchString(s.Stanza) {
			f.fail(stanzas[0].line, "["+s.Stanza+"]", "cannot be the stanza of a herd", "a-z, 0-9, - and _", "")
		}
	}
	for _, e := range f.entries {
		if _, command, _ := strings.Cut(e.section, ":"); command != "" && e.option.standing == honoured && !contains([]string{"backup", "expire"}, command) {
			f.warn(e, "the command line alone looks at it: the herd's own backups do not distinguish commands")
		}
	}
	f.fill(&s)
	if len(f.problems) > 0 {
		return s, f.warnings, f.problems
	}
	return s, f.warnings, nil
}

// fill takes the values that count.
func (f *file) fill(s *Settings) {
	values := map[string]entry{}
	for _, command := range []string{"backup", "expire"} {
		for name, e := range f.effective(s.Stanza, command) {
			if e.index <= 1 && (command == "backup") != strings.HasPrefix(name, "repo-retention") {
				values[name] = e
			}
		}
	}
	str := func(name string) string { return values[name].value }
	num := func(name string) int { n, _ := strconv.Atoi(values[name].value); return n }
	s.RepoPath, s.PGPath, s.LogLevelConsole = str("repo-path"), str("pg-path"), str("log-level-console")
	s.RetentionFull, s.RetentionDiff, s.RetentionArchive = num("repo-retention-full"), num("repo-retention-diff"), num("repo-retention-archive")
	s.Compress, s.CompressLevel, s.Processes = str("compress-type"), num("compress-level"), num("process-max")
	if str("compress") == "n" {
		s.Compress, s.CompressLevel = "none", 0
	}
	if v := str("start-fast"); v != "" {
		fast := v == "y"
		s.StartFast = &fast
	}
}

// entry is one line with an option.
type entry struct {
	section string // as written, without brackets
	name    string // as written
	option  Option
	index   int
	value   string
	line    int
}

type file struct {
	name     string
	entries  []entry
	sections []section
	problems config.Problems
	warnings []config.Problem
}

type section struct {
	name string
	line int
}

func (f *file) at(line int) string { return fmt.Sprintf("%s:%d", f.name, line) }

func (f *file) fail(line int, key, what, want, hint string) {
	f.problems = append(f.problems, config.Problem{Where: f.at(line), Key: key, What: what, Want: want, Hint: hint})
}

func (f *file) warn(e entry, what string) {
	f.warnings = append(f.warnings, config.Problem{Where: f.at(e.line), Key: e.name, What: what})
}

// parse reads the file and judges each line by itself.
func parse(r io.Reader, name string) (*file, error) {
	f := &file{name: name}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	current := ""
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && line[len(line)-1] == ']':
			current = line[1 : len(line)-1]
			f.section(current, n)
		default:
			f.line(current, line, n)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return f, nil
}

func (f *file) section(name string, line int) {
	base, command, part := strings.Cut(name, ":")
	f.sections = append(f.sections, section{base, line})
	if base == "" {
		f.fail(line, "["+name+"]", "a section without a name", "[global] or [STANZA]", "")
	}
	if part && !contains(allCommands, command) {
		hint := ""
		if n := config.Nearest(command, allCommands); n != "" {
			hint = "did you mean [" + base + ":" + n + "]?"
		}
		f.fail(line, "["+name+"]", fmt.Sprintf("%q is no command of pgbackrest", command), "", hint)
	}
}

func (f *file) line(section, line string, n int) {
	name, value, ok := strings.Cut(line, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	switch {
	case !ok:
		f.fail(n, "", fmt.Sprintf("%.60q is neither a section nor key=value", line), "", "comments begin with # at the beginning of a line")
		return
	case section == "":
		f.fail(n, name, "stands before the first section", "", "begin with [global]")
		return
	case value == "":
		f.fail(n, name, "has no value", "", "")
		return
	}
	o, index, known := find(name)
	if !known {
		hint := "see pgbackrest's reference"
		if near := config.Nearest(name, optionNames()); near != "" {
			hint = "did you mean " + near + "?"
		}
		f.fail(n, name, "is no option of pgbackrest", "", hint)
		return
	}
	e := entry{section, name, o, index, value, n}
	f.judge(e)
	f.entries = append(f.entries, e)
}

func (f *file) judge(e entry) {
	o := e.option
	for _, had := range f.entries {
		if had.section == e.section && had.option.Name == o.Name && had.index == e.index && o.kind != many {
			f.fail(e.line, e.name, fmt.Sprintf("given twice, first in line %d", had.line), "", "")
			return
		}
	}
	if o.cliOnly {
		f.fail(e.line, e.name, "belongs on the command line", "", "")
		return
	}
	if base, _, _ := strings.Cut(e.section, ":"); base == "global" && strings.HasPrefix(o.Name, "pg-") && o.standing == honoured {
		f.fail(e.line, e.name, "belongs to a stanza", "", "move it below a section [STANZA]")
		return
	}
	if why := o.objection(e.index, e.value); why != "" {
		shown := "=" + e.value
		if o.secret {
			shown = ""
		}
		f.fail(e.line, e.name+shown, "not supported: "+why, "", "remove the line")
		return
	}
	if what, want := o.check(e.value); what != "" {
		f.fail(e.line, e.name, what, want, "")
		return
	}
	switch {
	case e.index > 1:
		f.warn(e, agentsTalk)
	case o.standing == idle:
		f.warn(e, o.why)
	}
}

// stanzas are the sections of stanzas, each once.
func (f *file) stanzas() []section {
	var out []section
	for _, s := range f.sections {
		if s.name != "global" && s.name != "" && !slices.ContainsFunc(out, func(o section) bool { return o.name == s.name }) {
			out = append(out, s)
		}
	}
	return out
}

// effective are the entries that count for a command, by the options' names:
// what is said for the command in particular wins, within the stanza first.
func (f *file) effective(stanza, command string) map[string]entry {
	out := map[string]entry{}
	for _, section := range []string{"global", "global:" + command, stanza, stanza + ":" + command} {
		for _, e := range f.entries {
			if e.section == section && e.index <= 1 {
				out[e.option.Name] = e
			}
		}
	}
	return out
}
