package conversation

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Conversation is what clients send and wait for, in order.
type Conversation struct {
	Name   string
	File   string
	Alone  bool              // nothing else may be played beside it
	Waits  bool              // not to be sent in one piece
	Minor  int               // of protocol 3 that is asked for
	Params map[string]string // of the start-up packet
	Steps  []Step
}

// Step is one line.
type Step struct {
	Client int // from 0
	Line   int // in the file
	Kind   Kind
	Text   string // of a message: with its letter
	N      int
}

// Kind of a step.
type Kind uint8

// What a step does.
const (
	Message Kind = iota
	Wait         // N messages that begin with Text's letter, or the end
	Send
	Half
	Cancel
	Fin // no more will be sent
	Open
	Dial // connect and say nothing
	Admin
	Until
	Letters // what must have come
)

var kinds = map[string]Kind{"wait": Wait, "send": Send, "half": Half, "cancel": Cancel, "fin": Fin, "open": Open, "dial": Dial, "admin": Admin, "until": Until, "=": Letters}

// messages are the letters that a client may begin a line with.
const messages = "QPBDCESHXdcfF"

// Parse reads a file of conversations.
func Parse(file, text string) ([]*Conversation, error) {
	var out []*Conversation
	var c *Conversation
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, "== "):
			var err error
			if c, err = head(file, line[3:]); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
			out = append(out, c)
		case c == nil:
			return nil, fmt.Errorf("%s:%d: a line before the first conversation", file, i+1)
		case line[0] == ' ' && len(c.Steps) > 0:
			last := &c.Steps[len(c.Steps)-1]
			last.Text += "\n" + expand(strings.TrimSpace(line))
		default:
			s, err := step(line)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
			s.Line = i + 1
			c.Steps = append(c.Steps, s)
		}
	}
	return out, nil
}

func head(file, line string) (*Conversation, error) {
	name, words, _ := strings.Cut(strings.TrimSuffix(line, "]"), " [")
	c := &Conversation{Name: name, File: file, Params: map[string]string{}}
	for _, w := range strings.Fields(words) {
		key, value, _ := strings.Cut(w, "=")
		option, isOption := strings.CutPrefix(key, "option:")
		var err error
		switch {
		case w == "alone":
			c.Alone = true
		case w == "waits":
			c.Waits = true
		case key == "minor":
			c.Minor, err = strconv.Atoi(value)
		case isOption:
			c.Params[option] = strings.ReplaceAll(value, "~", " ")
		default:
			err = fmt.Errorf("unknown word %q", w)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

var prefix = regexp.MustCompile(`^([1-9])> ?`)

func step(line string) (Step, error) {
	var s Step
	if m := prefix.FindStringSubmatch(line); m != nil {
		s.Client = int(m[1][0] - '1')
		line = line[len(m[0]):]
	}
	word, rest, _ := strings.Cut(line, " ")
	kind, ok := kinds[word]
	switch {
	case ok:
		s.Kind, s.Text = kind, expand(rest)
	case word == "raw", len(word) == 1 && strings.Contains(messages, word):
		s.Text = expand(line)
		if _, err := encode(s.Text, ""); err != nil {
			return s, err
		}
		return s, nil
	default:
		return s, fmt.Errorf("unknown word %q", word)
	}
	return s, s.count()
}

// count takes the number out of a wait or a half.
func (s *Step) count() (err error) {
	switch s.Kind {
	case Wait:
		letter, n, found := strings.Cut(s.Text, "*")
		if s.Text, s.N = letter, 1; found {
			s.N, err = strconv.Atoi(n)
		}
		if s.Text == "" {
			s.Text = "Z"
		}
		if len(s.Text) != 1 && s.Text != "end" {
			return fmt.Errorf("wait %q: want a letter or end", s.Text)
		}
		if s.N < 1 {
			return fmt.Errorf("wait for %d messages", s.N)
		}
	case Half:
		s.N, err = strconv.Atoi(s.Text)
	}
	return err
}

var repeated = regexp.MustCompile(`\{([^{}]*)\*([0-9]+)\}`)

func expand(s string) string {
	return repeated.ReplaceAllStringFunc(s, func(m string) string {
		p := repeated.FindStringSubmatch(m)
		n, err := strconv.Atoi(p[2])
		if err != nil {
			return m
		}
		return strings.Repeat(p[1], n)
	})
}

// Clients is how many take part.
func (c *Conversation) Clients() int {
	n := 0
	for _, s := range c.Steps {
		n = max(n, s.Client+1)
	}
	return n
}

// Whole says whether it may be sent in one piece, by one client.
func (c *Conversation) Whole() bool {
	return !c.Waits && c.Clients() == 1 && !slices.ContainsFunc(c.Steps, func(s Step) bool {
		return s.Kind == Cancel || s.Kind == Dial || s.Kind == Fin || s.Kind == Admin || s.Kind == Until
	})
}

// String is the conversation in the form that Parse reads.
func (c *Conversation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "== %s\n", c.Name)
	for _, s := range c.Steps {
		if s.Client > 0 {
			fmt.Fprintf(&b, "%d> ", s.Client+1)
		}
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

// String is the step's line.
func (s Step) String() string {
	for word, kind := range kinds {
		if kind != s.Kind {
			continue
		}
		switch kind {
		case Wait:
			return fmt.Sprintf("wait %s*%d", s.Text, s.N)
		case Half:
			return fmt.Sprintf("half %d", s.N)
		}
		return strings.TrimSpace(word + " " + s.Text)
	}
	return strings.ReplaceAll(s.Text, "\n", "\n ")
}
