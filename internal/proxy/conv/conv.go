package conv

import (
	"bytes"

	"manada/internal/proxy/wire"
)

// Conv is one client's conversation. Not safe for concurrent use.
type Conv struct {
	cfg    *Config
	links  [sides]*Link // [Client] stays nil
	limits *Limits

	// The client's side.
	skip    int  // bytes of its message under way, which go to Main
	lapses  int  // and of one that goes to nobody
	open    bool // a batch has begun
	unsure  bool // a unit under way makes or closes named statements: if it fails it has not
	barrier bool // nothing goes behind its end until that is answered
	stopped bool // it is not read from
	paused  Side // this server is not, while the other one's message is on its way to it
	wait    wait // what it waits for before it is read on
	mid     Side // whose message is on its way to it; Client: nobody's

	// What it has.
	shown   *report          // the settings that it was told; nil: nobody knows
	begun   *report          // at its log-in
	stmts   map[string]*stmt // its named statements
	kept    int              // bytes of their texts
	serial  int              // of the last one
	plain   *stmt            // its unnamed statement
	bound   *note            // of what is bound to the unnamed portal
	bare    bool             // nothing is bound to it, but what a Query may have left
	rebound bool             // it was bound in the batch under way
	portals map[string]*note // and to named ones, in the transaction under way
	set     set
	plans   *Plans
	pin     string // why nobody but Main may answer it; "" anybody
	guess   *note  // pin is for this alone, of which nobody knows yet whether it was done
	told    string // and the driver has been told
	tie     string // why it keeps Main in modes that pin nobody

	owed  owed
	read  reading
	ghost ghost
	phase Phase // of a switchover
	names naming

	// Main.
	offered  *Link // is at hand in the Step under way
	used     bool  // since it was granted
	unread   bool  // something of it was not looked at
	inserted bool  // nextval may have been called since it was granted
	strange  bool  // the last values of sequences in it are not the client's
	once     bool  // ever
	numbers  bool  // the client asks for the last values of sequences
	refused  *wire.Error
	promoted bool // it was a standby, see outgrown

	enters  bool // it is not told Welcome yet
	armed   [Timers]bool
	late    bool        // what it runs was cancelled, see QueryTimer
	called  bool        // it is off, as soon as the server has the client's settings, see callOff
	leaves  bool        // it said good-bye, or sends no more
	half    bool        // the latter: it gets the answers that are on their way
	bad     *wire.Error // what it sent is nothing that PostgreSQL takes
	killed  *wire.Error // it is to end as soon as that may be said
	hurried bool        // the driver knows
	shut    bool        // and as soon as it is idle
	over    bool
}

// wait is what keeps the client's bytes where they are.
type wait uint8

const (
	nothing      wait = iota
	forReader         // Want
	forWritten        // AskWritten
	forReplayed       // AskReplayed
	forSettings       // the standby takes the client's settings over
	forAnswer         // the standby answers
	forMain           // Want
	forTuning         // Main takes the client's settings over
	forHold           // the switchover
	forBind           // the unnamed portal's is answered
	forReset          // what makes or drops statements, or start-up values, is answered first
	forWalsender      // what a replication session has asked is answered first
)

// owed is what was given to Main since nothing was owed.
type owed struct {
	unit      []byte // as the client sent it
	whole     bool   // and it is all there
	relayed   bool   // the client has some of its answer
	given     int    // or so many that the proxy gave itself, to its first messages
	completed bool   // and of that a CommandComplete
	wrote     bool   // not only reads
	lazy      bool   // unit has queries that were not looked at
	peeked    bool   // the query that comes next was
	query     about
}

// New begins a conversation with a client that is logged in. In mode Session Main
// is granted to it before its first byte.
func New(cfg *Config) *Conv {
	c := &Conv{cfg: cfg, limits: cfg.Limits.some(), plans: cfg.Plans}
	if c.plans == nil && cfg.Mode != Session {
		c.plans = NewPlans(new(alone))
	}
	c.set.began, c.set.session, c.set.hides = cfg.HidesWarnings, cfg.HidesWarnings, cfg.HidesWarnings
	if cfg.Startup != nil {
		c.set.first, c.set.vars = cfg.Startup.vars, cfg.Startup.vars
	}
	c.read.seen = true // what others wrote before it began
	return c
}

// eager says whether every text is looked at before it is passed on.
func (c *Conv) eager() bool { return c.cfg.Split || c.cfg.Mode == Auto }

// pinned keeps the client's work on Main.
func (c *Conv) pinned(why string) {
	if c.pin == "" || c.guess != nil {
		c.pin, c.guess = why, nil
	}
}

// tied keeps the client's work on Main in every mode: what is there under the client's own
// name is nobody else's.
func (c *Conv) tied(why string) {
	c.pinned(why)
	if c.tie == "" {
		c.tie = why
	}
}

// guessed is pinned by what n is about, unless that turns out not to be done at all.
func (c *Conv) guessed(why string, n *note) {
	fresh := c.pin == ""
	if c.pinned(why); fresh {
		c.guess = n
	}
}

// undid: nothing of what n is about was done.
func (c *Conv) undid(n *note) {
	if n != nil && n == c.guess {
		c.pin, c.guess = "", nil
	}
}

// barred: what n is about has failed. A standby refuses some commands as such: nothing
// of them was done.
func (c *Conv) barred(n *note, body []byte) {
	if bytes.Contains(body, readOnly) && (c.pin == "LISTEN" || c.pin == temporaryObjects) {
		c.undid(n)
	}
}

var readOnly = []byte("\x00C25006\x00")

// Pin says why nobody but Main may answer the client; "" when others may.
func (c *Conv) Pin() string { return c.pin }

// InTransaction says whether the client has a transaction open.
func (c *Conv) InTransaction() bool { return c.status() != 'I' }

// Step takes one event and says what is to be done. Of Bytes it consumes what it
// returns; the rest is offered again with what comes behind it.
func (c *Conv) Step(ev Event, fx *Effects) (consumed int) {
	if c.over {
		return len(ev.Bytes)
	}
	switch ev.Kind {
	case Bytes:
		c.offered = ev.Link
		consumed = c.from(ev.Side, ev.Bytes, fx)
	case Granted:
		c.granted(ev.Side, ev.Link, fx)
	case Denied:
		c.denied(ev.Side, ev.Err, fx)
	case Gone:
		c.gone(ev.Side, ev.Why, ev.Err, fx)
	case Written:
		c.written(ev.Flushed, ev.Insert, fx)
	case Replayed:
		c.replayed(ev.Flushed, fx)
	case Named:
		c.names.named(fx)
	case Cancel:
		c.cancel(fx)
	case CancelDone, CancelLost:
		c.cancelRead(ev, fx)
	case Drain:
		c.drain(ev.Phase)
	case Expired:
		c.expired(ev.Timer, fx)
	case Kill:
		c.killed = c.doubted(ev.Err, fx)
	case Enter:
		c.enters = true
	case Shutdown:
		c.shut = true
	case Promoted:
		c.promoted = true
	case Limited:
		c.limited(ev.Limits, fx)
	case SendsNoMore:
		c.sendsNoMore(fx)
	}
	c.settle(fx)
	c.offered = nil
	return consumed
}

func (c *Conv) from(side Side, b []byte, fx *Effects) (consumed int) {
	if side == Client {
		return c.fromClient(b, fx)
	}
	return c.fromServer(side, b, fx)
}

// settle does what has become possible.
func (c *Conv) settle(fx *Effects) {
	main := c.links[Main]
	if c.killed != nil && c.mid != Client && !c.hurried && !c.over {
		c.hurried = true
		fx.add(Effect{Kind: Hurry})
	}
	switch {
	case c.over:
		return
	case c.killed != nil && c.mid == Client:
		c.end(c.killed, fx)
		return
	case c.bad != nil && c.mid == Client && !c.answering():
		c.end(c.bad, fx)
		return
	case c.half && !c.answering():
		c.end(nil, fx) // of what it owes a Sync nothing comes
		return
	case c.leaves && c.wait == nothing && (main == nil || main.free()):
		c.end(nil, fx)
		return
	case c.shut && c.idle():
		c.end(shuttingDown(), fx)
		return
	}
	c.release(fx)
	if side := c.paused; side != Client && c.mid == Client {
		if c.paused = Client; c.links[side] != nil {
			fx.add(Effect{Kind: Start, Side: side})
		}
	}
	if c.wait == forBind && (main == nil || !main.q.rebinds()) {
		c.wait = nothing
	}
	if c.drained(fx); c.promoted && !c.over {
		c.outgrown(fx)
	}
	if c.enters && c.wait == nothing && !c.over {
		c.ready(fx)
	}
	if c.stopped && !c.blocked() {
		c.stopped = false
		fx.add(Effect{Kind: Start, Side: Client})
	}
	if why, _ := c.stays(); why != c.told && c.guess == nil && !c.over && c.renames() {
		c.told = why
		fx.add(Effect{Kind: Pinned, Text: why})
	}
	c.arm(fx)
}

// status is the client's, as ReadyForQuery has it.
func (c *Conv) status() byte {
	if l := c.links[Main]; l != nil {
		return l.status
	}
	if c.ghost.status != 0 {
		return c.ghost.status
	}
	return 'I'
}

// free says whether nothing is owed to the client and nothing was begun.
func (c *Conv) free() bool {
	l := c.links[Main]
	return c.wait == nothing && c.skip == 0 && !c.open && (l == nil || l.free())
}

// idle says whether it is in no transaction, too.
func (c *Conv) idle() bool { return c.free() && c.status() == 'I' }

// maxOwed bounds the answers that a client may wait for at once.
const maxOwed = 1 << 15

// blocked says whether the client's bytes have to stay where they are.
func (c *Conv) blocked() bool {
	if c.wait != nothing || c.leaves || c.bad != nil || c.killed != nil {
		return true
	}
	most := maxOwed
	if c.stopped {
		most /= 2
	}
	l := c.links[Main]
	return l == nil && !c.pooled() || l != nil && l.q.n >= most
}

// end gives back what the client has, tells it why and closes its connection.
func (c *Conv) end(why *wire.Error, fx *Effects) {
	if why != nil && c.mid == Client {
		at := len(fx.own)
		fx.own = why.Append(fx.own)
		fx.add(Effect{Kind: Send, Side: Client, B: fx.own[at:]})
	}
	for side := Main; side < sides; side++ {
		if l := c.links[side]; l != nil {
			c.give(side, c.back(side, l), fx)
		}
	}
	c.over = true
	fx.add(Effect{Kind: End})
}

func (c *Conv) give(side Side, how How, fx *Effects) {
	c.links[side] = nil
	if c.mid == side {
		c.mid = Client
	}
	fx.add(Effect{Kind: Give, Side: side, How: how})
}

// add appends an effect.
func (fx *Effects) add(e Effect) { fx.List = append(fx.List, e) }

// say sends a message of our own.
func (fx *Effects) say(side Side, typ byte, body []byte) {
	at := len(fx.own)
	fx.own = wire.AppendMessage(fx.own, typ, body)
	fx.add(Effect{Kind: Send, Side: side, B: fx.own[at:]})
}

// run is a walk over bytes that came from a side. What of them may be passed on as
// it is goes to another side in as few pieces as possible.
type run struct {
	fx      *Effects
	to      Side
	b       []byte
	from, n int // b[from:n] is to be passed on
}

func (r *run) rest() []byte { return r.b[r.n:] }

// flush passes on what was found.
func (r *run) flush() {
	if r.n > r.from {
		r.fx.add(Effect{Kind: Send, Side: r.to, B: r.b[r.from:r.n]})
	}
	r.from = r.n
}

// drop leaves out the next k bytes.
func (r *run) drop(k int) {
	r.flush()
	r.n += k
	r.from = r.n
}

// replace sends b in the place of the next k bytes.
func (r *run) replace(k int, b []byte) {
	r.drop(k)
	r.fx.add(Effect{Kind: Send, Side: r.to, B: b})
}
