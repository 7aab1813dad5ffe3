package conv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/wire"
)

// The language of the scenarios, see testdata/README.md.

// message writes one message of a scenario, from the client or from a server.
func message(word string, client bool) ([]byte, error) {
	typ, arg := word[0], ""
	if len(word) > 1 {
		if word[1] != '(' || word[len(word)-1] != ')' {
			return nil, fmt.Errorf("message %q: want X or X(...)", word)
		}
		arg = word[2 : len(word)-1]
	}
	a, b, _ := strings.Cut(arg, "|")
	var body string
	switch {
	case client:
		switch typ {
		case 'Q':
			body = arg + "\x00"
		case 'P':
			b, types, _ := strings.Cut(b, "|")
			n, _ := strconv.Atoi(types)
			if long, ok := strings.CutPrefix(b, "long "); ok {
				b = long + strings.Repeat(" ", maxBody)
			}
			body = a + "\x00" + b + "\x00\x00" + string(rune(n)) + strings.Repeat("\x00\x00\x00\x17", n)
		case 'B':
			b, params, _ := strings.Cut(b, "|")
			body = a + "\x00" + b + "\x00\x00\x00" + "\x00\x00" + params + "\x00\x00"
		case 'D', 'C':
			body = a + b + "\x00"
			if a == "" {
				body = "P\x00"
			}
		case 'E':
			body = arg + "\x00\x00\x00\x00\x00"
		default:
			body = arg
		}
	case typ == 'E' || typ == 'N':
		f := strings.SplitN(arg, " ", 3)
		sev := "ERROR"
		if f[0][0] >= 'A' {
			sev, f = f[0], f[1:]
		} else if f = f[:1]; len(arg) > 6 {
			f = append(f, arg[6:])
		}
		text := "text"
		if len(f) > 1 {
			text = f[1]
		}
		routine := ""
		if t, r, ok := strings.Cut(text, "@"); ok {
			text, routine = t, "R"+r+"\x00"
		}
		body = "S" + sev + "\x00V" + sev + "\x00C" + f[0] + "\x00M" + text + "\x00" + routine + "\x00"
	case typ == 'C':
		body = arg + "\x00"
	case typ == 'S':
		k, v, _ := strings.Cut(arg, "=")
		body = k + "\x00" + v + "\x00"
	case typ == 'T':
		body = "\x00\x00"
	case typ == 't':
		body = "\x00\x00"
	default:
		body = arg
	}
	if size, ok := strings.CutPrefix(body, "*"); ok {
		n, err := strconv.Atoi(size)
		if err != nil {
			return nil, err
		}
		body = strings.Repeat("x", n)
	}
	return wire.AppendMessage(nil, typ, []byte(body)), nil
}

// words splits a line at blanks outside of parentheses.
func words(line string) (out []string) {
	depth, from := 0, -1
	for i, c := range line + " " {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ' ' && depth == 0:
			if from >= 0 {
				out = append(out, line[from:i])
			}
			from = -1
			continue
		}
		if from < 0 {
			from = i
		}
	}
	return out
}

func messages(line string, client bool) (out []byte, err error) {
	for _, w := range words(line) {
		if hex, ok := strings.CutPrefix(w, "raw:"); ok {
			var b []byte
			if _, err := fmt.Sscanf(hex, "%x", &b); err != nil {
				return nil, err
			}
			out = append(out, b...)
			continue
		}
		m, err := message(w, client)
		if err != nil {
			return nil, err
		}
		out = append(out, m...)
	}
	return out, nil
}

// spell writes messages as scenarios do.
func spell(b []byte, client bool) string {
	var out []string
	for len(b) > 0 {
		if len(b) < headerLen || len(b) < 1+int(binary.BigEndian.Uint32(b[1:])) {
			out = append(out, fmt.Sprintf("...%d bytes of %q", len(b), b[0]))
			break
		}
		total := 1 + int(binary.BigEndian.Uint32(b[1:]))
		out = append(out, spellOne(b[0], b[headerLen:total], client))
		b = b[total:]
	}
	return strings.Join(out, " ")
}

func spellOne(typ byte, body []byte, client bool) string {
	arg := ""
	parts := strings.Split(string(body), "\x00")
	switch {
	case client:
		switch typ {
		case 'Q':
			arg = parts[0]
		case 'P':
			arg = parts[0] + "|" + parts[1]
			if long := strings.TrimRight(parts[1], " "); len(long) < len(parts[1])-1000 {
				arg = parts[0] + "|long " + long
			}
		case 'B':
			if arg = parts[0] + "|" + parts[1]; arg == "|" {
				arg = ""
			}
		case 'D', 'C':
			if arg = parts[0][:1] + "|" + parts[0][1:]; arg == "P|" {
				arg = ""
			}
		case 'E':
			arg = parts[0]
		default:
			arg = printable(body)
		}
	case typ == 'E' || typ == 'N':
		e := wire.ParseError(body)
		arg = e.Severity + " " + e.Code + " " + e.Message
		if e.Detail != "" {
			arg += " / " + e.Detail
		}
	case typ == 'C':
		arg = parts[0]
	case typ == 'S':
		arg = parts[0] + "=" + parts[1]
	case typ == 'T' || typ == 't':
	default:
		arg = printable(body)
	}
	if arg == "" {
		return string(typ)
	}
	return string(typ) + "(" + arg + ")"
}

func printable(b []byte) string {
	if len(b) > 100 {
		return "*" + strconv.Itoa(len(b))
	}
	return strings.Trim(strconv.QuoteToASCII(string(b)), `"`)
}

// happening is one line of a scenario's block: bytes or another event.
type happening struct {
	Event
	bytes bool
	shown map[string]string
	offer *Link // is at hand when the client says something next
}

var sideNames = [sides]string{Client: "client", Main: "main", Reader: "reader"}

func sideOf(name string) (Side, error) {
	for s, n := range sideNames {
		if n == name {
			return Side(s), nil
		}
	}
	return 0, fmt.Errorf("no side %q", name)
}

// happens reads one line.
func happens(line string) (h happening, err error) {
	if name, rest, ok := strings.Cut(line, ":"); ok {
		if s, err := sideOf(strings.TrimSpace(name)); err == nil {
			h.bytes, h.Kind, h.Side = true, Bytes, s
			h.Bytes, err = messages(rest, s == Client)
			return h, err
		}
	}
	f := strings.Fields(line)
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	if f[0] == "grant" || f[0] == "deny" || f[0] == "gone" || f[0] == "cancel-done" || f[0] == "cancel-lost" {
		if h.Side, err = sideOf(arg(1)); err != nil {
			return h, err
		}
	}
	lsn := func(s string) cluster.LSN { n, _ := strconv.ParseUint(s, 16, 64); return cluster.LSN(n) }
	switch f[0] {
	case "grant":
		h.Kind = Granted
		h.Link, err = newTestLink(h.Side, f[2:])
	case "offer":
		h.offer, err = newTestLink(Main, f[1:])
	case "deny":
		h.Kind = Denied
		if len(f) > 2 {
			h.Err = wire.Fatal(f[2], strings.Join(f[3:], " "), "")
		}
	case "gone":
		h.Kind = Gone
		h.Why = map[string]Why{"": Closed, "deposed": Deposed, "silent": Silent}[arg(2)]
	case "shown":
		h.shown = map[string]string{}
		for _, w := range f[1:] {
			k, v, _ := strings.Cut(w, "=")
			h.shown[k] = strings.ReplaceAll(v, "_", " ")
		}
	case "written":
		h.Kind, h.Flushed, h.Insert = Written, lsn(arg(1)), lsn(arg(2))
	case "replayed":
		h.Kind, h.Flushed = Replayed, lsn(arg(1))
	case "named":
		h.Kind = Named
	case "cancel":
		h.Kind = Cancel
	case "cancel-done":
		h.Kind = CancelDone
	case "cancel-lost":
		h.Kind = CancelLost
	case "sends-no-more":
		h.Kind = SendsNoMore
	case "expired":
		h.Kind = Expired
		h.Timer = map[string]Timer{"query": QueryTimer, "tx": TxTimer, "idle-tx": IdleTxTimer, "idle": IdleTimer}[arg(1)]
	case "limits":
		h.Kind, h.Limits = Limited, &Limits{}
		for _, w := range f[1:] {
			k, v, _ := strings.Cut(w, "=")
			d, bad := time.ParseDuration(v)
			if *h.Limits.of(k), err = d, bad; err != nil {
				return h, err
			}
		}
	case "kill":
		h.Kind, h.Err = Kill, wire.Fatal(arg(1), strings.Join(f[2:], " "), "")
	case "enter":
		h.Kind = Enter
	case "promoted":
		h.Kind = Promoted
	case "shutdown":
		h.Kind = Shutdown
	case "drain":
		h.Kind = Drain
		h.Phase = map[string]Phase{"no": NoDrain, "soft": Soft, "hold": Hold, "over": Over}[arg(1)]
	default:
		err = fmt.Errorf("no event %q", f[0])
	}
	return h, err
}

func newTestLink(side Side, words []string) (*Link, error) {
	l := NewLink("n1", 7, map[string]string{"DateStyle": "ISO, MDY", "TimeZone": "UTC"}, 'I')
	if side == Reader {
		l.Node, l.Epoch = "n2", 0
	}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "node":
			l.Node = v
		case "standby":
			l.Node, l.Epoch = v, 0
			l.reported = l.reported.with("in_hot_standby", "on").with("default_transaction_read_only", "on")
		case "epoch":
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				return nil, err
			}
			l.Epoch = n
		case "pid":
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return nil, err
			}
			l.PID = uint32(n)
		case "status":
			l.status = v[0]
		default:
			l.reported = l.reported.with(k, strings.ReplaceAll(v, "_", " "))
		}
	}
	return l, nil
}

// world drives a conversation as a loop would, and objects to what no loop could do.
type world struct {
	t       testing.TB
	c       *Conv
	fx      Effects
	links   map[string]*Link // by node, when a scenario gives one a second time
	offered *Link            // a server that is at hand, until it is taken
	held    [sides][]byte    // not consumed
	stopped [sides]bool
	has     [sides]bool
	ended   bool
	half    bool              // the client sends no more
	cuts    func(n int) []int // how bytes are cut; nil: not

	sent [sides][]byte // since it was looked at
	log  []string      // what else was to be done
	seen []string      // both, in order
}

func newWorld(t testing.TB, cfg *Config) *world {
	w := &world{t: t, c: New(cfg)}
	w.has[Client] = true
	return w
}

func (w *world) happen(h happening) {
	if h.shown != nil {
		w.c.Shown(NewReport(h.shown))
		return
	}
	if h.offer != nil {
		w.offered = w.known(h.offer)
		return
	}
	if !h.bytes {
		if h.Kind == Granted {
			h.Link = w.known(h.Link)
		}
		switch h.Kind {
		case Granted:
			w.has[h.Side], w.held[h.Side], w.stopped[h.Side] = true, nil, false
		case Gone: // a client's first time means that it sends no more
			w.has[h.Side], w.held[h.Side] = h.Side == Client && !w.half, nil
			w.half = w.half || h.Side == Client
		}
		w.step(h.Event)
		return
	}
	b, at := h.Bytes, 0
	if w.cuts != nil {
		for _, to := range w.cuts(len(b)) {
			w.offer(h.Side, b[at:to])
			at = to
		}
	}
	w.offer(h.Side, b[at:])
}

// known is the link of that node that was given back before, if there was one.
func (w *world) known(l *Link) *Link {
	if w.links == nil {
		w.links = map[string]*Link{}
	}
	if old := w.links[l.Node]; old != nil {
		return old
	}
	w.links[l.Node] = l
	return l
}

// offer gives bytes to the conversation, behind those that it has left.
func (w *world) offer(side Side, b []byte) {
	if !w.has[side] || w.ended {
		return
	}
	w.held[side] = append(w.held[side], b...)
	if w.stopped[side] {
		return
	}
	w.step(w.says(side))
}

// says is the event of what is held of a side.
func (w *world) says(side Side) Event {
	ev := Event{Kind: Bytes, Side: side, Bytes: bytes.Clone(w.held[side])}
	if side == Client && !w.has[Main] {
		ev.Link = w.offered
	}
	return ev
}

func (w *world) step(ev Event) {
	if w.ended {
		return
	}
	w.fx.Reset()
	n := w.c.Step(ev, &w.fx)
	if n < 0 || n > len(ev.Bytes) {
		w.t.Fatalf("consumed %d of %d bytes", n, len(ev.Bytes))
	}
	if ev.Kind == Bytes && w.has[ev.Side] {
		w.held[ev.Side] = w.held[ev.Side][n:]
	}
	var again []Side
	for _, e := range w.fx.List {
		if w.ended {
			w.t.Fatalf("an effect behind the end: %+v", e)
		}
		if again = append(again, w.do(e)...); e.Kind == Give {
			w.held[e.Side] = nil
		}
	}
	for i := range ev.Bytes {
		ev.Bytes[i] = 0xEE // nobody may keep them
	}
	for _, s := range again {
		if w.has[s] && !w.stopped[s] && !w.ended {
			w.step(w.says(s))
		}
	}
}

func (w *world) do(e Effect) (again []Side) {
	if (e.Kind == Send || e.Kind == Give || e.Kind == SendCancel) && !w.has[e.Side] {
		w.t.Fatalf("effect %d for %s, which is not there", e.Kind, sideNames[e.Side])
	}
	what := ""
	switch e.Kind {
	case Send:
		if len(e.B) == 0 {
			w.t.Fatal("nothing is sent")
		}
		w.sent[e.Side] = append(w.sent[e.Side], e.B...)
		if n := len(w.seen); n > 0 && w.seen[n-1] == "\x00"+sideNames[e.Side] {
			return nil
		}
		w.seen = append(w.seen, "\x00"+sideNames[e.Side])
		return nil
	case Stop:
		if w.stopped[e.Side] {
			w.t.Fatal("stopped twice")
		}
		w.stopped[e.Side] = true
		return nil
	case Start:
		if !w.stopped[e.Side] {
			w.t.Fatal("started while it was not stopped")
		}
		w.stopped[e.Side] = false
		return []Side{e.Side}
	case Want:
		what = "want " + sideNames[e.Side]
	case Take:
		if w.has[Main] || w.offered == nil {
			w.t.Fatal("taken though it was not offered")
		}
		w.has[Main], w.held[Main], w.stopped[Main], w.offered = true, nil, false, nil
		what = "take main"
	case Give:
		w.has[e.Side] = false
		if e.How == Close {
			maps.DeleteFunc(w.links, func(_ string, l *Link) bool { return w.gave(e.Side, l) })
		}
		what = "give " + sideNames[e.Side] + [...]string{Clean: "", Discard: ", discard", Close: ", close"}[e.How]
	case AskWritten:
		what = "ask what is written"
	case AskReplayed:
		what = fmt.Sprintf("ask whether %X is replayed", uint64(e.At))
	case AskNames:
		what = "ask for the names"
	case Withdraw:
		what = "withdraw " + sideNames[e.Side]
	case SendCancel:
		what = "cancel " + sideNames[e.Side]
	case Arm:
		what = fmt.Sprintf("timer %s %s", [...]string{"query", "tx", "idle-tx", "idle"}[e.Timer], e.D)
	case Hurry:
		what = "hurry"
	case Pinned:
		what = "pinned: " + e.Text
	case Warn:
		what = "warn: " + e.Text
	case End:
		w.ended = true
		for s := Main; s < sides; s++ {
			if w.has[s] {
				w.t.Fatalf("ended with %s in hand", sideNames[s])
			}
		}
		what = "end"
	}
	w.log = append(w.log, what)
	w.seen = append(w.seen, what)
	return nil
}

// gave says whether the link is the one of a side.
func (w *world) gave(side Side, l *Link) bool { return (side == Reader) == (l.Epoch == 0) }

// report says what has been done since the last report.
func (w *world) report() string {
	var b strings.Builder
	told := [sides]bool{}
	for _, line := range w.seen {
		name, ok := strings.CutPrefix(line, "\x00")
		if !ok {
			b.WriteString(line + "\n")
			continue
		}
		s, _ := sideOf(name)
		if !told[s] {
			told[s] = true
			fmt.Fprintf(&b, "-> %s: %s\n", name, spell(w.sent[s], s != Client))
		}
	}
	w.clear()
	return b.String()
}

// outcome is what does not depend on how the bytes came.
func (w *world) outcome() string {
	var b strings.Builder
	for s := range w.sent {
		fmt.Fprintf(&b, "%s: %q\n", sideNames[s], w.sent[s])
	}
	out := b.String() + strings.Join(w.log, "\n")
	w.clear()
	return out
}

func (w *world) clear() {
	w.sent, w.log, w.seen = [sides][]byte{}, nil, nil
}
