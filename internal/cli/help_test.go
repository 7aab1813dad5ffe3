package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func visible(c *cobra.Command, f func(*cobra.Command)) {
	for _, s := range c.Commands() {
		if s.Hidden || s.Name() == "help" || s.Name() == "completion" {
			continue
		}
		f(s)
		visible(s, f)
	}
}

// Every command that people see has a sentence, examples that begin with its
// own name, and its exit codes.
func TestEveryCommandExplainsItself(t *testing.T) {
	root := newRoot(&app{out: &bytes.Buffer{}, err: &bytes.Buffer{}})
	visible(root, func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if !strings.Contains(c.Long, "EXIT STATUS\n    0  done") {
			t.Errorf("%s: no exit codes in its help", c.CommandPath())
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example of itself", c.CommandPath())
		}
		for _, line := range strings.Split(c.Example+"\n"+c.Long, "\n") {
			if len(line) > 80 {
				t.Errorf("%s: help line of %d columns: %s", c.CommandPath(), len(line), line)
			}
		}
		if c.Parent() == root && c.GroupID == "" {
			t.Errorf("%s is in no group", c.CommandPath())
		}
	})
}

// The examples parse: what the help tells people to type exists.
func TestExamplesParse(t *testing.T) {
	root := newRoot(&app{out: &bytes.Buffer{}, err: &bytes.Buffer{}})
	visible(root, func(c *cobra.Command) {
		for _, line := range strings.Split(c.Example, "\n") {
			i := strings.Index(line, "manada ")
			if i < 0 {
				continue
			}
			words := strings.Fields(strings.NewReplacer(`)"`, " ", "|", " | ", "&&", " && ", ">", " > ").Replace(line[i+7:]))
			for j, w := range words {
				if w == "|" || w == "&&" || w == ">" {
					words = words[:j]
					break
				}
			}
			found, rest, err := root.Find(words)
			if err != nil || found == root {
				t.Errorf("example %q: %v", line, err)
				continue
			}
			found.InitDefaultHelpFlag()
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("example %q: %v", line, err)
			}
		}
	})
}
