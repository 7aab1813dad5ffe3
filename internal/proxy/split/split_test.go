package split

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

func msg(typ byte, parts ...string) []byte {
	return wire.AppendMessage(nil, typ, []byte(strings.Join(parts, "")))
}
func q(sql string) []byte           { return msg('Q', sql, "\x00") }
func parse(name, sql string) []byte { return msg('P', name, "\x00", sql, "\x00\x00\x00") }
func bind(name string) []byte       { return msg('B', "\x00", name, "\x00\x00\x00\x00\x00\x00\x00") }
func execute() []byte               { return msg('E', "\x00\x00\x00\x00\x00") }
func describe(name string) []byte   { return msg('D', "S", name, "\x00") }
func closes(name string) []byte     { return msg('C', "S", name, "\x00") }
func sync() []byte                  { return msg('S') }
func join(b ...[]byte) []byte       { return bytes.Join(b, nil) }
func run(name string) []byte        { return join(bind(name), execute(), sync()) }
func whole(sql string) []byte       { return join(parse("", sql), run("")) }

// give hands the tracker a quiet unit and lets the primary answer it.
func give(t *testing.T, tr *Tracker, b []byte, failed bool) Do {
	t.Helper()
	s := tr.Next(b, true, true)
	switch s.Do {
	case Forward:
		if s.N != len(b) {
			t.Fatalf("forwards %d of %d bytes of %q", s.N, len(b), b)
		}
		tr.Settle(failed)
	case Offer:
		if s.N != len(b) {
			t.Fatalf("offers %d of %d bytes", s.N, len(b))
		}
		tr.Answered(s.Unit)
	}
	return s.Do
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		what string
		b    []byte
		want Do
	}{
		{"a read", q("select 1"), Offer},
		{"a write", q("insert into t values (1)"), Forward},
		{"a batch that reads", whole("select 1"), Offer},
		{"two reads in a batch", join(parse("", "select 1"), bind(""), execute(), bind(""), execute(), sync()), Offer},
		{"a batch that writes", whole("delete from t"), Forward},
		{"a read and a write", join(parse("", "select 1"), bind(""), execute(), parse("", "delete from t"), run("")), Forward},
		{"only prepared", join(parse("s", "select 1"), describe("s"), sync()), Forward},
		{"prepared and run", join(parse("s", "select 1"), run("s")), Forward},
		{"with a flush", join(parse("", "select 1"), msg('H'), run("")), Forward},
		{"an unknown statement", run("nobody"), Forward},
		{"only Sync", sync(), Forward},
		{"a function call", msg('F', "x"), Forward},
		{"good-bye", msg('X'), Forward},
		{"a text with NUL", msg('Q', "select 1\x00select 2\x00"), Forward},
		{"show pool_nodes", q("SHOW pool_nodes;"), Answer},
		{"show pool_nodes, extended", join(parse("", "show pool_nodes"), describe(""), run("")), Answer},
	} {
		for cut := range len(c.b) {
			tr := Tracker{Balance: true}
			if s := tr.Next(c.b[:cut], true, true); s.Do != More && (s.Do != Forward || c.want != Forward) {
				t.Fatalf("%s: %d of %d bytes: %+v", c.what, cut, len(c.b), s)
			}
		}
		tr := Tracker{Balance: true}
		if s := tr.Next(c.b, true, true); s.Do != c.want || s.N != len(c.b) {
			t.Errorf("%s: %+v, want %d of %d bytes", c.what, s, c.want, len(c.b))
		}
		for _, not := range []Tracker{{}, {Balance: true, pinned: true}} {
			if s := not.Next(c.b, true, true); c.want != Answer && s.Do != Forward {
				t.Errorf("%s: not split, and yet %+v", c.what, s)
			}
		}
		busy := Tracker{Balance: true}
		if s := busy.Next(c.b, false, false); s.Do != Forward {
			t.Errorf("%s while something is owed: %+v", c.what, s)
		}
	}
}

// What was pipelined behind a unit of the primary is looked at when that is answered.
func TestPipelined(t *testing.T) {
	tr := Tracker{Balance: true}
	write, read := q("insert into t values (1)"), q("select 1")
	if s := tr.Next(join(write, read), true, true); s.Do != Forward || s.N != len(write) {
		t.Errorf("%+v", s)
	}
	if s := tr.Next(join(read, write), false, false); s.Do != Forward || s.N != len(read)+len(write) {
		t.Errorf("%+v", s)
	}
	if s := tr.Next(join(read, write), true, true); s.Do != Offer || s.N != len(read) {
		t.Errorf("%+v", s)
	}
}

func TestPrepared(t *testing.T) {
	tr := &Tracker{Balance: true}
	give(t, tr, join(parse("r", "select $1"), describe("r"), sync()), false)
	give(t, tr, join(parse("w", "insert into t values ($1)"), describe("w"), sync()), false)
	s := tr.Next(run("r"), true, true)
	if s.Do != Offer || len(s.Unit.Needs) != 1 || string(s.Unit.Needs[0].Parse) != string(parse("r", "select $1")) {
		t.Errorf("%+v", s)
	}
	if give(t, tr, run("w"), false) != Forward || tr.Pinned() {
		t.Error("a prepared write")
	}
	give(t, tr, join(closes("r"), sync()), false)
	give(t, tr, join(parse("r", "delete from t"), sync()), true)
	if s := tr.Next(run("r"), true, true); s.Do != Forward {
		t.Errorf("a statement whose preparation failed: %+v", s)
	}
	if !tr.Pinned() {
		t.Error("not pinned by a statement that was not seen")
	}
	// The unnamed one lives where it was made last.
	tr = &Tracker{Balance: true}
	give(t, tr, join(parse("", "delete from t"), sync()), false)
	if give(t, tr, whole("select 1"), false) != Offer {
		t.Error("not offered")
	}
	s = tr.Next(run(""), true, true)
	if s.Do != Offer || len(s.Unit.Needs) != 1 || string(s.Unit.Needs[0].Parse) != string(parse("", "select 1")) {
		t.Errorf("used again: %+v", s)
	}
	// The primary gets it first.
	s = tr.Next(join(describe(""), sync()), true, true)
	if s.Do != Forward || s.N != len(describe("")) || string(s.Before) != string(parse("", "select 1")) {
		t.Errorf("%+v", s)
	}
	if s = tr.Next(sync(), true, true); s.Do != Forward || s.Before != nil {
		t.Errorf("%+v", s)
	}
	if s = tr.Next(run(""), true, true); s.Do != Forward || s.Before != nil {
		t.Errorf("now it has it: %+v", s)
	}
}

func TestSessionState(t *testing.T) {
	read := q("select 1")
	for _, c := range []struct {
		what   string
		before [][]byte
		want   Do
		sql    string
	}{
		{"a setting", [][]byte{q("set a.b = 1"), q("set c = 2"), q("set a.b = 3")}, Offer, "set c = 2|set a.b = 3"},
		{"a setting in a batch", [][]byte{whole("set c = 2")}, Offer, "set c = 2"},
		{"a prepared setting", [][]byte{join(parse("s", "set c = 2"), sync()), run("s")}, Offer, "set c = 2"},
		{"reset", [][]byte{q("set c = 2"), q("reset all")}, Offer, "reset all"},
		{"two in a text", [][]byte{q("set c = 2; set d = 3")}, Forward, ""},
		{"in a transaction of its batch", [][]byte{join(parse("", "begin"), bind(""), execute(), parse("", "set c = 2"), run(""))}, Forward, ""},
		{"both halves of DateStyle", [][]byte{q("set datestyle to dmy"), q("set datestyle to iso"), q("set datestyle to dmy")}, Offer, "set datestyle to iso|set datestyle to dmy"},
		{"two in a batch", [][]byte{join(parse("", "set c = 2"), bind(""), execute(), parse("", "set d = 2"), run(""))}, Forward, "set c = 2"},
		{"a temporary table", [][]byte{q("create temp table t (i int)")}, Forward, ""},
		{"a function", [][]byte{whole("select f()")}, Forward, ""},
		{"a function call", [][]byte{msg('F', "x")}, Forward, ""},
		{"discarded", [][]byte{q("listen x"), q("discard all")}, Offer, "DISCARD ALL"},
		{"a long text", [][]byte{q("select '" + strings.Repeat("x", MaxUnit) + "'")}, Forward, ""},
		{"muted", [][]byte{join(parse("s", "set client_min_messages=error"), sync()), run("s")}, Offer, "set client_min_messages='warning'"},
	} {
		tr := &Tracker{Balance: true}
		for _, b := range c.before {
			for quiet := true; len(b) > 0; quiet = false {
				s := tr.Next(b, quiet, quiet)
				if s.Do != Forward {
					t.Fatalf("%s: %+v", c.what, s)
				}
				b = b[s.N:]
			}
			tr.Settle(false)
		}
		if got := tr.Next(read, true, true).Do; got != c.want {
			t.Errorf("%s: then %d, want %d", c.what, got, c.want)
		}
		if sql, _ := tr.Journal.Since(0); strings.Join(sql, "|") != c.sql {
			t.Errorf("%s: journal %q, want %q", c.what, sql, c.sql)
		}
	}
}

func TestSettingsThatFailOrAreDoubtful(t *testing.T) {
	tr := &Tracker{Balance: true}
	give(t, tr, q("set nonsense = 1"), true)
	if sql, _ := tr.Journal.Since(0); len(sql) != 0 || tr.Pinned() {
		t.Errorf("%q", sql)
	}
	tr.Next(q("set a.b = 1"), false, false)
	if !tr.Pinned() {
		t.Error("a setting in a transaction")
	}
	tr = &Tracker{Balance: true}
	set := q("set a.b = 1")
	tr.Next(set, true, true)
	tr.Next(q("select 1/0"), false, false)
	if tr.Settle(true); !tr.Pinned() {
		t.Error("one of two failed, nobody knows which")
	}
}

func TestJournal(t *testing.T) {
	var j Journal
	j.add(Setting{"a", "set a = 1"})
	_, at := j.Since(0)
	j.add(Setting{"b", "set b = 1"})
	j.add(Setting{"a", "set a = 2"})
	sql, now := j.Since(at)
	if strings.Join(sql, "|") != "set b = 1|set a = 2" {
		t.Errorf("%q", sql)
	}
	if sql, _ := j.Since(now); sql != nil {
		t.Errorf("%q again", sql)
	}
}

// Finding H9: whatever the client says, warnings reach the proxy.
func TestUnmute(t *testing.T) {
	for in, want := range map[string]string{
		"set client_min_messages = error":                         "set client_min_messages = 'warning'",
		"begin; set local client_min_messages to 'PANIC'; commit": "begin; set local client_min_messages to 'warning'; commit",
		"select set_config('client_min_messages','fatal',false)":  "select set_config('client_min_messages','warning',false)",
	} {
		for _, b := range [][2][]byte{{q(in), q(want)}, {parse("x", in), parse("x", want)}} {
			for _, quiet := range []bool{true, false} {
				tr := &Tracker{}
				before := q("select 2")
				s := tr.Next(join(before, b[0]), false, false)
				if s.Do != Forward || s.N != len(before) || s.Instead != nil {
					t.Fatalf("%+v", s)
				}
				if s = tr.Next(b[0], quiet, quiet); s.N != len(b[0]) || !bytes.Equal(s.Instead, b[1]) {
					t.Errorf("%q: %q, want %q", in, s.Instead, b[1])
				}
			}
		}
	}
	tr := &Tracker{}
	if s := tr.Next(q("set client_min_messages = notice"), true, true); s.Instead != nil {
		t.Errorf("%q", s.Instead)
	}
}

// Any bytes in any pieces arrive whole, but for what is rewritten.
func FuzzNext(f *testing.F) {
	f.Add(join(q("select 1"), whole("select 2"), q("set x = 1"), run("nobody")), uint8(3))
	f.Add([]byte("Q\x00\x00\x00\x00xxxxxxxx"), uint8(1))
	f.Add(join(parse("s", "select 1"), describe("s"), sync(), run("s"), closes("s"), sync(), msg('d', "data"), msg('c')), uint8(7))
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		if mayMute(in) {
			return
		}
		tr := &Tracker{Balance: true}
		var held, out []byte
		for i, rest := 0, in; len(rest) > 0; i++ {
			n := min(int(piece)+1, len(rest))
			held, rest = append(held, rest[:n]...), rest[n:]
			for {
				s := tr.Next(held, i%3 == 0, i%3 == 0)
				if s.Do == More {
					break
				}
				if s.N <= 0 || s.N > len(held) {
					t.Fatalf("%+v of %d bytes", s, len(held))
				}
				if s.Do == Answer {
					tr.Answer(held[:s.N], Table{}, 'I')
				}
				out = append(out, held[:s.N]...)
				held = held[s.N:]
			}
		}
		if !bytes.Equal(append(out, held...), in) {
			t.Errorf("%q became %q", in, out)
		}
	})
}

// What cannot be a read does not wait for its Sync, and neither does what is long.
func TestPassedOnAtOnce(t *testing.T) {
	for what, b := range map[string][]byte{
		"copy":       join(parse("", "copy t from stdin"), bind(""), execute()),
		"a write":    join(parse("", "insert into t values (1)")),
		"named":      join(parse("s", "select 1")),
		"long batch": bytes.Repeat(join(bind("r"), execute()), MaxBatch/20),
	} {
		tr := &Tracker{Balance: true}
		give(t, tr, join(parse("r", "select 1"), sync()), false)
		if s := tr.Next(b, true, true); s.Do != Forward || s.N != len(b) {
			t.Errorf("%s: %+v", what, s)
		}
	}
}

// What a unit does to client_min_messages is told with the unit.
func TestLevels(t *testing.T) {
	tr := &Tracker{}
	b := join(q("select 1"), q("set client_min_messages = notice"), q("begin; set local client_min_messages = default"), q("reset all"))
	var got []LevelChange
	for len(b) > 0 {
		s := tr.Next(b, false, false)
		got, b = append(got, s.Levels...), b[s.N:]
	}
	want := []LevelChange{{0, classify.LevelShows, false}, {0, classify.LevelReset, true}, {1, classify.LevelReset, false}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s := tr.Next(join(parse("", "set client_min_messages to error")), false, false)
	if len(s.Levels) != 0 {
		t.Errorf("prepared only: %v", s.Levels)
	}
	if s = tr.Next(run(""), false, false); len(s.Levels) != 1 || s.Levels[0].Level != classify.LevelHides {
		t.Errorf("run: %v", s.Levels)
	}
}
