package netns

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// step is a block of commands of the walk-through and where it is typed.
type step struct {
	hosts  []string
	script string
	line   int // in README.md
}

// builder is where the program was built: the only place without a name.
const builder = "builder"

var knownHosts = []string{"db1", "db2", "witness", "app"}

var onHosts = regexp.MustCompile("(?i)\\bon (?:the machine where|(?:the application's host, here called )?(`[a-z0-9]+`(?:(?:, | and )`[a-z0-9]+`)*))")

// walkThrough reads the section "## Three hosts": its blocks of commands, each
// with the hosts that the text before it names last.
func walkThrough(text string) ([]step, error) {
	var steps []step
	var script []string
	in, code, start, said := false, false, 0, ""
	for n, line := range strings.Split(text, "\n") {
		switch {
		case code && strings.TrimSpace(line) == "```":
			hosts := named(said)
			if len(hosts) == 0 {
				return nil, fmt.Errorf("README.md:%d: the text does not say on which host this is typed", start)
			}
			steps = append(steps, step{hosts, strings.Join(script, "\n") + "\n", start})
			code, said, script = false, "", nil
		case code:
			script = append(script, line)
		case strings.HasPrefix(line, "## "):
			in = line == "## Three hosts"
		case !in:
		case strings.HasPrefix(line, "```sh"):
			code, start = true, n+1
		case strings.HasPrefix(line, "```"):
			return nil, fmt.Errorf("README.md:%d: a block that is not sh", n+1)
		default:
			said += line + " " // where it is typed may stand at a line's end
		}
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("README.md: no commands under \"## Three hosts\"")
	}
	return steps, nil
}

// named lists the hosts of the last "on `db1` and `db2`" of a text.
func named(line string) []string {
	all := onHosts.FindAllStringSubmatch(line, -1)
	if all == nil {
		return nil
	}
	m := all[len(all)-1]
	if m[1] == "" {
		return []string{builder}
	}
	return strings.FieldsFunc(strings.ReplaceAll(m[1], " and ", ","), func(r rune) bool { return strings.ContainsRune("`, ", r) })
}

func readWalkThrough(t *testing.T) []step {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := walkThrough(string(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		for _, h := range s.hosts {
			if h != builder && !slices.Contains(knownHosts, h) {
				t.Fatalf("README.md:%d: no host is called %s", s.line, h)
			}
		}
	}
	return steps
}

func TestWalkThroughIsRead(t *testing.T) {
	steps, err := walkThrough("## Two\n```sh\nno\n```\n## Three hosts\nOn `a`, `b` and\n`c`. More\nwords.\n\n```sh\nx\ny\n```\n" +
		"On the machine where you typed it:\n```sh\nz\n```\nAnd on `b` only:\n```sh\nw\n```\n## Next\n```sh\nno\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []step{{[]string{"a", "b", "c"}, "x\ny\n", 10}, {[]string{builder}, "z\n", 15}, {[]string{"b"}, "w\n", 19}}
	if got := fmt.Sprint(steps); got != fmt.Sprint(want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	for _, bad := range []string{"## Three hosts\n```sh\nx\n```\n", "## Three hosts\nOn `a`:\n```yaml\nx\n```\n", "## Other\n"} {
		if _, err := walkThrough(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
