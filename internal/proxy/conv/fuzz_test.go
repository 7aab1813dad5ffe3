package conv

import (
	"bytes"
	"encoding/binary"
	"testing"

	"manada/internal/proxy/wire"
)

// whole counts the messages of b; ok says whether the last one is complete.
func whole(b []byte) (n int, ok bool) {
	for len(b) > 0 {
		if len(b) < headerLen || len(b) < 1+int(binary.BigEndian.Uint32(b[1:])) {
			return n, false
		}
		b = b[1+int(binary.BigEndian.Uint32(b[1:])):]
		n++
	}
	return n, true
}

// FuzzBytes: whatever comes from whatever side, nothing panics, what is sent to a
// server are whole messages or the beginning of one that is under way, nothing
// follows the end, and what is remembered is bounded.
func FuzzBytes(f *testing.F) {
	seed := func(side byte, line string, client bool) []byte {
		b, err := messages(line, client)
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{side, byte(len(b))}, b...)
	}
	f.Add(bytes.Join([][]byte{seed(0, "Q(select 1)", true), seed(1, "T D(1) C(SELECT 1) Z(I)", false)}, nil), uint8(0))
	f.Add(bytes.Join([][]byte{seed(0, "Q(select 1)", true), {3, 4}, seed(2, "T D(1) C(SELECT 1) Z(I)", false)}, nil), uint8(1))
	f.Add(bytes.Join([][]byte{seed(0, "P(s|select 1) B(|s) D(S|s) E S", true), seed(1, "1 2 t T D(1) C(SELECT 1) Z(I)", false),
		seed(0, "B(|s) E S", true), {3, 4}, seed(2, "1 2 D(1) C(SELECT 1) Z(I)", false)}, nil), uint8(1))
	f.Add(bytes.Join([][]byte{seed(0, "P(|copy t from stdin) B E S d(1) c S Q(select 1)", true), seed(1, "1 2 G C(COPY 1) Z(I)", false)}, nil), uint8(2))
	f.Add(bytes.Join([][]byte{seed(0, "Q(begin) Q(set client_min_messages = error) Q(rollback)", true), seed(1, "C(BEGIN) Z(T) C(SET) Z(T) N(WARNING 01000 x) C(ROLLBACK) Z(I)", false)}, nil), uint8(1))
	f.Add(bytes.Join([][]byte{seed(0, "P(s|select 1) S", true), {3, 1}, seed(1, "1 Z(I)", false), seed(0, "B(|s) E C(S|s) S", true), {3, 1}, seed(1, "2 C(SELECT 0) Z(I)", false)}, nil), uint8(24))
	f.Add(bytes.Join([][]byte{seed(0, "Q(begin) Q(reset all)", true), {3, 1}, seed(1, "C(BEGIN) Z(T) C(RESET) Z(T)", false)}, nil), uint8(8))
	f.Add([]byte("\x00\x05Q\x00\x00\x00\x00\x01\x09Z\x00\x00\x00\x05I\x00\x00\x00"), uint8(4))
	f.Fuzz(func(t *testing.T, in []byte, kind uint8) { play(t, in, kind) })
}

// play gives a conversation events that are written in bytes: what, how much, and
// the bytes of it.
func play(t testing.TB, in []byte, kind uint8) {
	cfg := &Config{Split: kind&1 != 0, Walsender: kind&2 != 0, HidesWarnings: kind&4 != 0, Mode: Mode(kind >> 3 & 3)}
	if cfg.PoolNodes = (func() Table { return Table{Columns: []string{"a"}} }); kind&32 != 0 {
		cfg.PoolNodes = nil
	}
	if cfg.Walsender {
		cfg.Mode = Session
	}
	if kind&64 != 0 && cfg.Mode != Session {
		cfg.Startup = NewStartup([]wire.Param{{Name: "TimeZone", Value: "UTC"}})
	}
	w := newWorld(t, cfg)
	w.begin(&story{cfg: cfg})
	sent := [sides][]byte{}
	for len(in) >= 2 && !w.ended {
		what, n := in[0], int(in[1])
		in = in[2:]
		if what%10 < byte(sides) {
			n = min(n, len(in))
			w.happen(happening{bytes: true, Event: Event{Kind: Bytes, Side: Side(what % 10), Bytes: bytes.Clone(in[:n])}})
			in = in[n:]
		} else {
			w.chance(what%10, n)
		}
		for s := range sent {
			sent[s] = append(sent[s], w.sent[s]...)
		}
		w.checkHeld()
		w.clear()
	}
	if w.c.skip == 0 {
		if _, ok := whole(sent[Main]); !ok {
			t.Fatalf("half a message is with Main: %q", sent[Main])
		}
	}
	if _, ok := whole(sent[Reader]); !ok {
		t.Fatalf("half a message is with the reader: %q", sent[Reader])
	}
}

// chance is an event that does not bring bytes.
func (w *world) chance(what byte, n int) {
	switch what {
	case 3, 4:
		if what == 4 && n%2 == 1 && w.c.wait == nothing {
			w.offered, _ = newTestLink(Main, nil)
		}
		for range n % 5 { // what the conversation waits for
			switch w.c.wait {
			case forReader:
				l, _ := newTestLink(Reader, nil)
				w.happen(happening{Event: Event{Kind: Granted, Side: Reader, Link: l}})
			case forMain:
				l, _ := newTestLink(Main, nil)
				w.happen(happening{Event: Event{Kind: Granted, Side: Main, Link: l}})
			case forWritten:
				w.happen(happening{Event: Event{Kind: Written, Flushed: 100, Insert: 100}})
			case forReplayed:
				w.happen(happening{Event: Event{Kind: Replayed, Flushed: 200}})
			}
		}
	case 5:
		w.happen(happening{Event: Event{Kind: Cancel}})
	case 6:
		w.happen(happening{Event: Event{Kind: CancelDone, Side: Side(n % int(sides))}})
	case 7:
		if w.c.wait == forReader {
			w.happen(happening{Event: Event{Kind: Denied, Side: Reader}})
		}
	case 8:
		w.happen(happening{Event: Event{Kind: Shutdown}})
	case 9:
		if s := Side(n % int(sides)); w.has[s] {
			w.happen(happening{Event: Event{Kind: Gone, Side: s}})
		}
	}
}

// checkHeld: what the driver has to hold is bounded, and so is what we remember.
func (w *world) checkHeld() {
	c := w.c
	if len(c.owed.unit) > keepMost || len(c.read.bytes) > MaxText || len(c.read.hold) > 2*MaxBatch || len(c.set.ops) > maxChanges {
		w.t.Fatalf("remembers too much: %d %d %d %d", len(c.owed.unit), len(c.read.bytes), len(c.read.hold), len(c.set.ops))
	}
	for s := range w.held {
		if len(w.held[s]) > MaxText+headerLen && !w.stopped[s] {
			w.t.Fatalf("the driver has to hold %d bytes", len(w.held[s]))
		}
	}
}
