package conversation

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestCorpusIsWhole(t *testing.T) {
	all, err := Corpus()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 150 {
		t.Errorf("%d conversations", len(all))
	}
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.Name] {
			t.Errorf("%s: two of this name", c.Name)
		}
		seen[c.Name] = true
		if len(c.Steps) == 0 {
			t.Errorf("%s: empty", c.Name)
		}
	}
	if _, err := ReadAllowed(); err != nil {
		t.Error(err)
	}
	if _, err := ReadKnown(); err != nil {
		t.Error(err)
	}
}

func TestEncode(t *testing.T) {
	for line, want := range map[string]string{
		"Q select '$schema'":      "Q\x00\x00\x00\x10select 'c1'\x00",
		"S":                       "S\x00\x00\x00\x04",
		"P -(int4,0) select $1":   "P\x00\x00\x00\x19\x00select $1\x00\x00\x02\x00\x00\x00\x17\x00\x00\x00\x00",
		"B p s 'a b' NULL > b":    "B\x00\x00\x00\x1fp\x00s\x00\x00\x02\x00\x00\x00\x00\x00\x02\x00\x00\x00\x03a b\xff\xff\xff\xff\x00\x01\x00\x01",
		"B - - x:0102":            "B\x00\x00\x00\x14\x00\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x02\x01\x02\x00\x00",
		"E - 2":                   "E\x00\x00\x00\x09\x00\x00\x00\x00\x02",
		`d 1\tx\n\\.`:             "d\x00\x00\x00\x0a1\tx\n\\.",
		"D S -":                   "D\x00\x00\x00\x06S\x00",
		"F 870 'A' > b":           "F\x00\x00\x00\x15\x00\x00\x03\x66\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01A\x00\x01",
		"raw 51 00 ff":            "Q\x00\xff",
		"f because":               "f\x00\x00\x00\x0cbecause\x00",
		"Q " + expand("{ab*3}c"):  "Q\x00\x00\x00\x0cabababc\x00",
		"P name with (x) in text": "P\x00\x00\x00\x1cname\x00with (x) in text\x00\x00\x00",
	} {
		got, err := encode(line, "c1")
		if err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
	for _, bad := range []string{"E - x", "D S", "B -", "P s(notype) select 1", "raw 5"} {
		if _, err := encode(bad, ""); err == nil {
			t.Errorf("%s: taken", bad)
		}
	}
}

func TestShow(t *testing.T) {
	for body, want := range map[string]string{
		"D\x00\x02\x00\x00\x00\x01x\xff\xff\xff\xff": "D x | NULL",
		"ZI":                                     "Z I",
		"ESERROR\x00C22012\x00Lx\x00Mno\x00\x00": "E S=ERROR C=22012 M=no",
		"A\x00\x00\x00\x07ch\x00pay\x00":         "A 7 ch pay",
		"T\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00": "T a:int4",
		"t\x00\x01\x00\x00\x00\x19": "t text",
		"1":                         "1",
	} {
		if got := show(body[0], []byte(body[1:])); got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
}

// What is random is readable, so that it can be kept when it found something.
func TestRandomIsReadable(t *testing.T) {
	for seed := range uint64(200) {
		c := Random("random", rand.New(rand.NewPCG(seed, 1)))
		again, err := Parse("again", c.String())
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, c)
		}
		if len(again) != 1 || again[0].String() != c.String() {
			t.Fatalf("seed %d: differs when it is read again:\n%s\n%s", seed, c, again[0])
		}
		for _, s := range c.Steps {
			if s.Kind == Message {
				if _, err := encode(s.Text, "c1"); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
	}
}

// A difference is found wherever it is, and only what is allowed is allowed.
func TestDifferences(t *testing.T) {
	c := &Conversation{Name: "x"}
	of := func(lines ...string) *Transcript { return &Transcript{Lines: [][]string{lines}} }
	a := &Allowed{}
	if d := a.Differences(c, of("1", "2"), of("1", "2")); d != "" {
		t.Error(d)
	}
	for _, got := range []*Transcript{of("1"), of("1", "3"), of("1", "2", "3"), of("2", "1"), of()} {
		if a.Differences(c, of("1", "2"), got) == "" {
			t.Errorf("%v passes", got)
		}
	}
}
