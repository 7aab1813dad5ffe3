package conv

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"manada/internal/proxy/wire"
)

// herd is some clients who share links, and for each a server of its own that is
// asked the same.
type herd struct {
	t       *testing.T
	rng     *rand.Rand
	clients []*guest
	units   []string
	idle    []*server
	fx      Effects
	log     []string
	quiet   bool // answers are not compared
	crashes bool // servers are lost between two things that clients say
}

type server struct {
	link *Link
	pg   *model
}

type guest struct {
	c       *Conv
	alone   *model
	main    *server
	offered *server // in the step under way
	held    []byte  // of the client, not consumed
	left    []byte  // of the server
	stopped bool
	got     []byte
	want    []byte
	waits   bool
	ended   bool
}

// step gives a client's conversation an event and does what it asks for.
func (h *herd) step(g *guest, ev Event) {
	if g.ended {
		return
	}
	h.fx.Reset()
	n := g.c.Step(ev, &h.fx)
	if ev.Kind == Bytes && ev.Side == Client {
		g.held = g.held[n:]
	} else if ev.Kind == Bytes {
		if g.left = ev.Bytes[n:]; len(g.left) > 0 && !head[g.left[0]] {
			h.t.Fatalf("a whole message of the server is left: %q", g.left)
		}
	}
	var answers []byte
	start := false
	for _, e := range h.fx.List {
		switch e.Kind {
		case Send:
			if e.Side == Client {
				g.got = append(g.got, e.B...)
			} else {
				answers = append(answers, g.main.pg.feed(e.B)...)
			}
		case Want:
			g.waits = true
		case Take:
			g.main, g.offered = g.offered, nil
		case Give:
			h.giveBack(g, e.How)
		case Stop:
			g.stopped = true
		case Start:
			g.stopped, start = false, true
		case End:
			g.ended = true
		}
	}
	if len(answers) > 0 && g.main != nil {
		h.answer(g, answers)
	}
	if start && len(g.held) > 0 {
		h.says(g)
	}
}

// says brings what is held of a client, perhaps with a server that is at hand.
func (h *herd) says(g *guest) {
	ev := Event{Side: Client, Bytes: bytes.Clone(g.held)}
	if g.main != nil || g.offered != nil || g.waits || h.rng.IntN(2) == 0 {
		h.step(g, ev)
		return
	}
	g.offered = h.server()
	ev.Link = g.offered.link
	h.step(g, ev)
	if s := g.offered; s != nil {
		g.offered, h.idle = nil, append(h.idle, s)
	}
}

// answer brings a server's answers, message by message or at once.
func (h *herd) answer(g *guest, b []byte) {
	for len(b) > 0 && g.main != nil {
		n := len(b)
		if h.rng.IntN(2) == 0 {
			n = 1 + int(uint32At(b[1:]))
		}
		all := append(bytes.Clone(g.left), b[:n]...)
		b = b[n:]
		h.step(g, Event{Side: Main, Bytes: all})
	}
}

func (h *herd) giveBack(g *guest, how How) {
	s := g.main
	g.main, g.left = nil, nil
	switch how {
	case Discard:
		h.discard(s)
	case Close:
		return
	}
	if s.pg.tx != 'I' || s.pg.implicit || len(s.pg.in) > 0 {
		h.t.Fatalf("a server is given back in a transaction: %c", s.pg.tx)
	}
	h.idle = append(h.idle, s)
}

// discard clears a server, by bits and pieces.
func (h *herd) discard(s *server) {
	b := s.pg.feed(s.link.Discard())
	done := false
	for held := 0; len(b) > 0; {
		held = min(held+1+h.rng.IntN(20), len(b))
		n, yes, err := s.link.Discarding(b[:held])
		if err != nil || done {
			h.t.Fatalf("discarding: %v, %v", err, done)
		}
		b, held, done = b[n:], held-n, yes
	}
	if !done {
		h.t.Fatal("not discarded")
	}
}

// server is one that was given back, or a new one.
func (h *herd) server() *server {
	n := len(h.idle)
	if n == 0 {
		return &server{NewLink("n1", 7, map[string]string{"DateStyle": "iso"}, 'I'), newModel("")}
	}
	i := h.rng.IntN(n)
	s := h.idle[i]
	h.idle = append(h.idle[:i], h.idle[i+1:]...)
	return s
}

// grant gives whoever waits a server.
func (h *herd) grant(g *guest) {
	g.waits = false
	g.main = h.server()
	h.step(g, Event{Kind: Granted, Side: Main, Link: g.main.link})
}

// units are what clients do; %d is the client's number.
var units = []string{
	"Q(set a.a = %d)", "Q(set a.b = x%d)", "Q(show a.a)", "Q(show a.b)", "Q(show datestyle)", "Q(reset a.a)", "Q(reset all)",
	"Q(set datestyle = s%d)", "Q(set datestyle = iso)", "Q(reset datestyle)", "Q(set local a.a = l%d)", "Q(set local datestyle = l%d)",
	"Q(begin)", "Q(begin)", "Q(commit)", "Q(commit)", "Q(rollback)", "Q(savepoint s)", "Q(savepoint t)", "Q(rollback to s)", "Q(rollback to savepoint t)", "Q(release s)",
	"Q(insert into t values %d)", "Q(select lastval())", "Q(update t set a = %d)", "Q(update t set a = %d)", "Q(select 1/0)", "Q(select '01/02/2024'::date)",
	"P(d|select '01/02/2024'::date) S", "B(|d) E S", "P(|select '01/02/2024'::date) B E S", "P(|select '01/02/2024'::date) S", "B E S", "D(S|) S", "D(S|d) S", "C(S|d) S",
	"P(u%d|show a.b) B(|u%d) E S", "C(S|u%d) S", "P(|set a.b = e%d) B E S", "P(|begin) B E S", "P(|commit) B E S", "P(|set a.a = e%d) B E P(|select 1/0) B E S",
	"P(w|select 1/0) B(|w) E C(S|w) S", "C(S|w) P(w|show a.a) B(|w) E S", "Q(deallocate d)", "P(|deallocate d) B E S Q(show a.a)", "Q(deallocate all)", "P(x|nonsense) S",
	"Q(create temp table x (a int))", "Q(select a from x)", "Q(discard all)", "Q(discard all)", "P(d|show datestyle) B(|d) E H", "S",
	"B(|manada:1) E S", "D(S|manada:2) S", "C(S|manada:1) S", `Q(deallocate "manada:1")`, "B(p|d) E(p) C(P|p) S", "Q(set a.a = m%d; show a.a)",
	"Q(set a.a = r%d; reset a.a; show a.a)", "Q(reset all; show a.a; select 1/0; reset a.a)", "Q(set local a.a to default; show a.a)", "Q(set a.a to default)",
	"P(|reset a.a) B E P(|show a.a) B E S", "P(|reset all) B(q) E(q) P(|show a.a) B E S", "P(|set local a.a to default) B E P(|show a.a) B E S", "P(|discard all) B E P(|show a.a) B E S",
	"P(|deallocate d) B E P(d|show datestyle) B(|d) E S", "P(|select 1/0) B E P(|deallocate d) B E S", "P(|deallocate all) B E P(d|show datestyle) B(|d) E S", "Q(show a.a; deallocate d; show a.a)",
	"P(|discard all) B E P(|show a.a) B E P(|select 1/0) B E S",
}

// TestNobodySeesAnothers: clients who share servers get, message for message, what
// each would get with a server of its own: settings, prepared statements, temporary
// tables, and never another client's last value.
//
// PostgreSQL keeps what a literal meant when its statement was prepared, also when
// the client sets DateStyle anew. What is prepared again on another server means
// what it means then: so a client here either prepares such literals or sets
// DateStyle again.
func TestNobodySeesAnothers(t *testing.T) {
	literal := func(u string) bool { return strings.Contains(u, "'01/02/2024'") }
	style := func(u string) bool {
		return strings.Contains(u, "datestyle =") || strings.Contains(u, "reset") || strings.Contains(u, "discard")
	}
	for seed := range uint64(200) {
		if !runHerd(t, seed, slices.DeleteFunc(slices.Clone(units), literal), "") {
			return
		}
		if !runHerd(t, seed, slices.DeleteFunc(slices.Clone(units), style), "Q(set datestyle = s%d)") {
			return
		}
	}
}

// loosely spells answers without what depends on the moment: which error a failed
// transaction gives, and when the client hears that its DateStyle was rolled back.
func loosely(b []byte) string {
	return regexp.MustCompile(`S\([^)]*\) `).ReplaceAllString(regexp.MustCompile(`E\(ERROR [^)]*\)`).ReplaceAllString(spell(b, false), "E"), "")
}

// TestCrashesBetween: the same where servers are lost while clients have a transaction
// open: it was rolled back, the next statement says so, and all else is as it was.
func TestCrashesBetween(t *testing.T) {
	for seed := range uint64(60) {
		h := newHerd(t, seed, slices.DeleteFunc(slices.Clone(units), func(u string) bool { return strings.Contains(u, "'01/02/2024'") }))
		if h.crashes = true; !h.run(seed, "") {
			return
		}
	}
}

func runHerd(t *testing.T, seed uint64, units []string, first string) bool {
	return newHerd(t, seed, units).run(seed, first)
}

const herdClients, herdRounds = 4, 60

func newHerd(t *testing.T, seed uint64, units []string) *herd {
	h := &herd{t: t, rng: rand.New(rand.NewPCG(seed, 1)), units: units}
	for i := range herdClients {
		cfg, a := &Config{Mode: Auto}, ""
		if i%2 == 1 { // it begins with a setting
			a = fmt.Sprintf("f%d", i+1)
			cfg.Startup = NewStartup([]wire.Param{{Name: "a.a", Value: a}})
		}
		g := &guest{c: New(cfg), alone: newModel(a)}
		g.c.Shown(NewReport(map[string]string{"DateStyle": "iso"}))
		h.clients = append(h.clients, g)
	}
	return h
}

func (h *herd) run(seed uint64, first string) bool {
	for round := range herdRounds * herdClients {
		i := h.rng.IntN(herdClients)
		line := ""
		if round < herdClients {
			i, line = round, fill(first, round+1)
		}
		for range 1 + h.rng.IntN(2) {
			line += " " + fill(h.units[h.rng.IntN(len(h.units))], i+1)
		}
		if !h.talk(seed, i, line) {
			return false
		}
	}
	return true
}

// talk lets a client say something, and its own server answer the same. Where the
// client asked for a last value and there is none, both begin anew.
func (h *herd) talk(seed uint64, i int, line string) bool {
	g := h.clients[i]
	b, err := messages(line, true)
	if err != nil {
		h.t.Fatal(err)
	}
	h.log = append(h.log, fmt.Sprintf("client %d: %s", i+1, line))
	if h.crashes && g.main != nil && g.c.Pin() == "" && !g.c.open && h.rng.IntN(4) == 0 {
		h.log = append(h.log, "its server was lost before that")
		g.main, g.left = nil, nil
		g.alone.doom()
		h.step(g, Event{Kind: Gone, Side: Main})
	}
	g.got, g.want = nil, g.alone.feed(b)
	for len(b) > 0 {
		n := 1 + h.rng.IntN(len(b))
		g.held = append(g.held, b[:n]...)
		b = b[n:]
		if !g.stopped {
			h.says(g)
		}
		if g.waits {
			h.grant(g)
		}
	}
	for g.waits {
		h.grant(g)
	}
	switch {
	case !g.ended && (bytes.Equal(g.got, g.want) || h.crashes && loosely(g.got) == loosely(g.want)):
		return true
	case !g.ended && bytes.Contains(g.got, []byte("C55000\x00")):
		h.quiet = true
		h.talk(seed, i, "S Q(rollback)")
		h.quiet = false
		return h.talk(seed, i, "Q(discard all)")
	case h.quiet:
		return true
	}
	h.t.Errorf("seed %d, client %d, pinned %q:\n%s\ngot  %s\nwant %s", seed, i+1, g.c.Pin(), tail(h.log, 400), spell(g.got, false), spell(g.want, false))
	return false
}

func tail(lines []string, n int) (out string) {
	for _, l := range lines[max(0, len(lines)-n):] {
		out += l + "\n"
	}
	return out
}

func fill(unit string, n int) string {
	var out bytes.Buffer
	for i := 0; i < len(unit); i++ {
		if i+1 < len(unit) && unit[i] == '%' && unit[i+1] == 'd' {
			fmt.Fprint(&out, n)
			i++
			continue
		}
		out.WriteByte(unit[i])
	}
	return out.String()
}
