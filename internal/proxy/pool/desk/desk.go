package desk

import (
	"context"
	"sync"
	"time"

	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/wire"
)

// Taker is whose a claim is, its Data. Its methods are called from any goroutine and
// do not block.
type Taker interface {
	// Take gives it a server, whose connection is watched on loop from, or nowhere yet
	// when that is -1. One that is not wanted any more is given back.
	Take(s *rules.Server, from int)
	// Denied says why it gets none; nil: it is to look elsewhere.
	Denied(e *wire.Error)
}

// Connections are what the desk does with connections. Methods that do not say
// otherwise are called from any goroutine and do not block.
type Connections interface {
	// Open logs in for the server's account at its node, in a goroutine of its own,
	// and gives the connection. How is as it was when that was decided: meanwhile others
	// may change it.
	Open(ctx context.Context, s *rules.Server, how How) (any, *wire.Error)
	// Park has a connection that nobody has yet watched on a loop, for its end.
	Park(s *rules.Server, loop int)
	// Close ends a connection, whoever has it or wherever it is on its way.
	// Desk.Closed follows.
	Close(s *rules.Server)
}

// How a connection is opened: the Data of the account and of the node, and the epoch in
// which the node's role began.
type How struct {
	Account, Node any
	Epoch         uint64
}

// Desk is the pools of a proxy. Its methods are safe for concurrent use.
type Desk struct {
	conns Connections
	loops int
	began time.Time

	life context.Context // of what is being opened
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	book    *rules.Book
	opening map[*rules.Server]context.CancelFunc
	settled map[uint64]chan struct{}
	timer   *time.Timer
	at      rules.Moment // for when the timer is set
	turn    int          // whose loop gets the next connection that nobody waits for
	closed  bool
}

// New makes a desk for so many loops. Close ends it.
func New(cfg rules.Config, loops int, conns Connections) *Desk {
	d := &Desk{conns: conns, loops: loops, began: time.Now(), book: rules.New(cfg, loops), opening: map[*rules.Server]context.CancelFunc{},
		settled: map[uint64]chan struct{}{}, at: 1<<63 - 1}
	// detached: what is being opened ends with Close, not with whoever wanted it
	d.life, d.stop = context.WithCancel(context.Background())
	return d
}

// Close ends what is being opened and every connection that nobody has. Clients have
// given back theirs before.
func (d *Desk) Close() {
	d.mu.Lock()
	d.closed = true
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	d.stop()
	d.work.Wait()
	d.do(func(_ rules.Moment, out []rules.Decision) []rules.Decision { return d.book.Kill("", out) })
}

// do lets the book decide and carries that out.
func (d *Desk) do(decide func(now rules.Moment, out []rules.Decision) []rules.Decision) {
	d.mu.Lock()
	out := decide(time.Since(d.began), nil)
	d.note(out)
	d.mu.Unlock()
	d.carry(out)
}

// note is what has to be done with the lock held.
func (d *Desk) note(out []rules.Decision) {
	for i, x := range out {
		switch x.Kind {
		case rules.Open:
			ctx, cancel := context.WithCancel(d.life)
			d.opening[x.Server] = cancel
			if d.closed {
				cancel()
			}
			p := x.Server.Pool
			how := How{p.Account.Data, p.Node.Data, p.Node.Epoch()}
			d.work.Go(func() { d.open(ctx, x.Server, how) })
		case rules.Close:
			if cancel := d.opening[x.Server]; cancel != nil {
				cancel()
				out[i].Server = nil // open sees to it
			}
		case rules.Settled:
			close(d.settled[x.ID])
			delete(d.settled, x.ID)
		}
	}
	if next := d.book.Next(); next < d.at && !d.closed {
		d.at = next
		if wait := max(next-time.Since(d.began), 0); d.timer == nil {
			d.timer = time.AfterFunc(wait, d.tick)
		} else {
			d.timer.Reset(wait)
		}
	}
}

// carry is what is done without the lock. Decisions about one server that were made
// one after the other may be carried out the other way round by two goroutines:
// Connections and Taker bear that.
func (d *Desk) carry(out []rules.Decision) {
	for _, x := range out {
		switch x.Kind {
		case rules.Hand:
			x.Claim.Data.(Taker).Take(x.Server, x.From)
		case rules.Deny:
			x.Claim.Data.(Taker).Denied(x.Err)
		case rules.Close:
			if x.Server != nil {
				d.conns.Close(x.Server)
			}
		}
	}
}

func (d *Desk) tick() {
	d.do(func(now rules.Moment, out []rules.Decision) []rules.Decision {
		d.at = 1<<63 - 1
		return d.book.Tick(now, out)
	})
}

// open opens a connection and says what came of it.
func (d *Desk) open(ctx context.Context, s *rules.Server, how How) {
	conn, err := d.conns.Open(ctx, s, how)
	d.mu.Lock()
	d.opening[s]()
	delete(d.opening, s)
	now := time.Since(d.began)
	var out []rules.Decision
	switch {
	case err != nil:
		out = d.book.Failed(now, s, err, nil)
	case s.Leaving(): // nobody wants it any more
		s.Data = conn
		d.mu.Unlock()
		d.conns.Close(s)
		return
	default:
		s.Data = conn
		loop := s.Loop
		if loop < 0 {
			loop, d.turn = d.turn, (d.turn+1)%d.loops
		}
		out = d.book.Opened(now, s, loop, nil)
		d.note(out)
		d.mu.Unlock()
		d.arrive(s, loop, out)
		return
	}
	d.note(out)
	d.mu.Unlock()
	d.carry(out)
}

// arrive puts a new connection to where it is wanted, or where it is watched.
func (d *Desk) arrive(s *rules.Server, loop int, out []rules.Decision) {
	wanted := false
	for i := range out {
		if out[i].Server == s {
			wanted = true
			out[i].From = -1
		}
	}
	if !wanted {
		d.conns.Park(s, loop)
	}
	d.carry(out)
}
