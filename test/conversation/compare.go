package conversation

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

//go:embed corpus
var corpus embed.FS

// Corpus is all conversations that are kept, in order of their files.
func Corpus() ([]*Conversation, error) {
	files, err := fs.Glob(corpus, "corpus/*.txt")
	if err != nil {
		return nil, err
	}
	var out []*Conversation
	for _, f := range files {
		b, err := corpus.ReadFile(f)
		if err != nil {
			return nil, err
		}
		c, err := Parse(f, string(b))
		if err != nil {
			return nil, err
		}
		out = append(out, c...)
	}
	return out, nil
}

// Allowed are the differences that are no mistake.
type Allowed struct {
	rules []allowance
}

type allowance struct {
	name, want, got *regexp.Regexp
}

// ReadAllowed reads corpus/allowed: lines of
//
//	NAME | WANT | GOT
//
// regular expressions of a conversation's name, of PostgreSQL's line and of the
// proxy's. An empty WANT allows lines that PostgreSQL does not send, an empty
// GOT allows that some are missing.
func ReadAllowed() (*Allowed, error) {
	b, err := corpus.ReadFile("corpus/allowed")
	if err != nil {
		return nil, err
	}
	a := &Allowed{}
	for _, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, " | ")
		if len(f) != 3 {
			return nil, fmt.Errorf("corpus/allowed: %s: want NAME | WANT | GOT", line)
		}
		r := allowance{}
		for i, to := range []**regexp.Regexp{&r.name, &r.want, &r.got} {
			text := strings.TrimSpace(f[i])
			if text == "-" {
				text = ""
			}
			if *to, err = regexp.Compile("^(?:" + text + ")$"); err != nil {
				return nil, err
			}
		}
		a.rules = append(a.rules, r)
	}
	return a, nil
}

func (a *Allowed) permits(name, want, got string) bool {
	for _, r := range a.rules {
		if r.name.MatchString(name) && r.want.MatchString(want) && r.got.MatchString(got) {
			return true
		}
	}
	return false
}

// Known are the mistakes that are still to be mended: by mode and name, what is wrong.
type Known []known

type known struct {
	mode, why string
	name      *regexp.Regexp
}

// ReadKnown reads corpus/known.
func ReadKnown() (Known, error) {
	b, err := corpus.ReadFile("corpus/known")
	if err != nil {
		return nil, err
	}
	var out Known
	for _, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, " | ")
		if len(f) != 3 {
			return nil, fmt.Errorf("corpus/known: %s: want MODE | NAME | what is wrong", line)
		}
		name, err := regexp.Compile("^(?:" + f[1] + ")$")
		if err != nil {
			return nil, err
		}
		out = append(out, known{mode: f[0], name: name, why: f[2]})
	}
	return out, nil
}

// Why a conversation differs in a mode; empty: it must not. A mode that is written
// with a question mark makes the mistake sometimes.
func (k Known) Why(mode, name string) (why string, always bool) {
	for _, x := range k {
		if strings.TrimSuffix(x.mode, "?") == mode && x.name.MatchString(name) {
			return x.why, x.mode == mode
		}
	}
	return "", false
}

// Difference is where two transcripts of a conversation differ first, for one client:
// the lines, empty where there is none.
type Difference struct {
	Client    int // from 0
	At        int // in want
	Want, Got string
}

// First compares what came from the proxy with what came from PostgreSQL, message by
// message, and says where they differ first, for each client for whom they do.
func (a *Allowed) First(c *Conversation, want, got *Transcript) []Difference {
	var out []Difference
	for i := range want.Lines {
		if at, other := a.first(c.Name, want.Lines[i], got.Lines[i]); at >= 0 {
			out = append(out, Difference{i, at, lineAt(want.Lines[i], at), lineAt(got.Lines[i], other)})
		}
	}
	return out
}

func lineAt(l []string, i int) string {
	if i < len(l) {
		return l[i]
	}
	return ""
}

// Differences is First with the lines around. It says nothing when they are alike.
func (a *Allowed) Differences(c *Conversation, want, got *Transcript) string {
	var b strings.Builder
	for _, d := range a.First(c, want, got) {
		want, got := want.Lines[d.Client], got.Lines[d.Client]
		fmt.Fprintf(&b, "client %d differs at its message %d:\n", d.Client+1, d.At)
		for k := max(0, d.At-3); k < max(len(want), len(got)) && k < d.At+4; k++ {
			fmt.Fprintf(&b, "  PostgreSQL %s\n  proxy      %s\n", cmp.Or(lineAt(want, k), "(nothing)"), cmp.Or(lineAt(got, k), "(nothing)"))
		}
	}
	return b.String()
}

// first is the index in want of the first difference, -1 when there is none, and that in
// got.
func (a *Allowed) first(name string, want, got []string) (at, other int) {
	i, k := 0, 0
	for i < len(want) || k < len(got) {
		switch {
		case i < len(want) && k < len(got) && (want[i] == got[k] || a.permits(name, want[i], got[k])):
			i, k = i+1, k+1
		case k < len(got) && a.permits(name, "", got[k]):
			k++
		case i < len(want) && a.permits(name, want[i], ""):
			i++
		default:
			return i, k
		}
	}
	return -1, -1
}
