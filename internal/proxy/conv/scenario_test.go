package conv

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"manada/internal/proxy/wire"
)

// TestScenarios runs testdata/*.txt: conversations, told event by event. A block
// `begin` starts one, a block `then` goes on; both print what is to be done. The
// words are explained in testdata/README.md. Each story is told again with the
// bytes cut in two at every place, in pieces of every small size, and with what
// comes from one side in one piece: the outcome is the same.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			var told []*story
			var w *world
			datadriven.RunTest(t, f, func(t *testing.T, d *datadriven.TestData) string {
				switch {
				case d.Cmd == "begin":
					s := &story{pos: d.Pos, cfg: config(t, d.CmdArgs), standby: d.HasArg("standby")}
					told = append(told, s)
					w = newWorld(t, s.cfg)
					w.begin(s)
				case d.Cmd != "then" || told == nil:
					d.Fatalf(t, "want `begin`, then `then`; got %q", d.Cmd)
				}
				lines := strings.Split(strings.TrimSpace(d.Input), "\n")
				s := told[len(told)-1]
				s.blocks = append(s.blocks, lines)
				for _, line := range lines {
					if line == "" {
						continue
					}
					h, err := happens(line)
					if err != nil {
						d.Fatalf(t, "%q: %v", line, err)
					}
					w.happen(h)
				}
				return w.report()
			})
			for _, s := range told {
				s.retell(t)
			}
		})
	}
}

// begin grants what a session begins with.
func (w *world) begin(s *story) {
	if s.cfg.Mode == Session && !s.cfg.Shared {
		l, _ := newTestLink(Main, nil)
		if s.standby {
			l.Epoch = 0
		}
		w.happen(happening{Event: Event{Kind: Granted, Side: Main, Link: l}})
	}
}

func config(t testing.TB, args []datadriven.CmdArg) *Config {
	cfg := &Config{PoolNodes: func() Table {
		return Table{Columns: []string{"node_id"}, Rows: [][]string{{"0"}, {"1"}}}
	}}
	var startup []wire.Param
	for _, a := range args {
		value := strings.Join(a.Vals, ",")
		switch a.Key {
		case "split":
			cfg.Split = true
		case "read-only":
			cfg.ReadOnly = true
		case "walsender":
			cfg.Walsender = true
		case "hides":
			cfg.HidesWarnings = true
		case "transaction":
			cfg.Mode = Transaction
		case "shared":
			cfg.Shared = true
			cfg.Welcome = func(l *Link) []byte { return wire.AppendMessage(nil, wire.TypeReady, []byte{l.status}) }
		case "statement":
			cfg.Mode = Statement
		case "auto":
			cfg.Mode = Auto
		case "query", "tx", "idle-tx", "idle":
			d, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Limits == nil {
				cfg.Limits = &Limits{}
			}
			*cfg.Limits.of(a.Key) = d
		case "standby": // is Main
		case "pid":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			cfg.PID = uint32(n)
		case "dangerous":
			cfg.Dangerous = listed(a.Vals)
		default:
			startup = append(startup, wire.Param{Name: a.Key, Value: value})
		}
	}
	cfg.Startup = NewStartup(startup)
	return cfg
}

// story is a conversation that was told.
type story struct {
	pos     string
	cfg     *Config
	standby bool // Main is one
	blocks  [][]string
}

// retell tells it again with other cuts.
func (s *story) retell(t *testing.T) {
	want, size := s.tell(t, nil, false), s.longest(t)
	try := func(what string, cuts func(int) []int, joined bool) {
		if got := s.tell(t, cuts, joined); got != want && !t.Failed() {
			t.Errorf("%s: %s:\n%s\nwant\n%s", s.pos, what, got, want)
		}
	}
	try("what the client sends in one piece", nil, true)
	for step := 1; step <= 8; step++ {
		try(fmt.Sprintf("in pieces of %d", step), func(n int) (at []int) {
			for i := step; i < n && i < 4096; i += step {
				at = append(at, i)
			}
			return at
		}, false)
	}
	for i := 1; i < min(size, 600); i++ {
		try(fmt.Sprintf("cut at %d", i), func(n int) []int {
			if i < n {
				return []int{i}
			}
			return nil
		}, false)
	}
}

// longest is the length of its longest line of bytes.
func (s *story) longest(t *testing.T) (n int) {
	for _, b := range s.blocks {
		for _, line := range b {
			if line != "" {
				h, err := happens(line)
				if err != nil {
					t.Fatal(err)
				}
				n = max(n, len(h.Bytes))
			}
		}
	}
	return n
}

func (s *story) tell(t *testing.T, cuts func(int) []int, joined bool) string {
	w := newWorld(t, s.cfg)
	w.begin(s)
	w.cuts = cuts
	var b strings.Builder
	for _, lines := range s.blocks {
		var before *happening
		for _, line := range lines {
			if line == "" {
				continue
			}
			h, err := happens(line)
			switch {
			case err != nil:
				t.Fatal(err)
			case joined && before != nil && h.bytes && before.bytes && before.Side == h.Side && h.Side == Client:
				before.Bytes = append(before.Bytes, h.Bytes...)
				continue
			case before != nil:
				w.happen(*before)
			}
			before = &h
		}
		if before != nil {
			w.happen(*before)
		}
		b.WriteString(w.outcome() + "\n--\n")
	}
	return b.String()
}

// listed is a set of dangerous names.
type listed []string

func (n listed) Dangerous(name []byte) bool { return slices.Contains(n, strings.ToLower(string(name))) }
func (n listed) Harmless([]byte) bool       { return false }
func (n listed) Leaves(text []byte) bool    { return strings.Contains(string(text), "leaves") }
func (n listed) Version() uint64            { return 0 }

func (l *Limits) of(name string) *time.Duration {
	return map[string]*time.Duration{"query": &l.Query, "tx": &l.Tx, "idle-tx": &l.IdleTx, "idle": &l.Idle}[name]
}
