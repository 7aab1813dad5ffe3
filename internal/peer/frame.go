package peer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"manada/internal/cluster"
)

// frame is one published beat, marshalled once for all listeners: without its
// term at once, with it when the first listener needs that. A term is the
// larger part of a beat and changes rarely.
type frame struct {
	beat cluster.Beat
	at   time.Time
	slim []byte
	full func() []byte
}

func newFrame(b cluster.Beat) (*frame, error) {
	slimBeat := b
	slimBeat.Term = nil
	slim, err := json.Marshal(&slimBeat)
	if err != nil {
		return nil, fmt.Errorf("encode beat: %w", err)
	}
	f := &frame{beat: b, at: time.Now(), slim: append(slim, '\n')}
	f.full = sync.OnceValue(func() []byte {
		if b.Term == nil {
			return f.slim
		}
		full, err := json.Marshal(&b)
		if err != nil {
			return f.slim
		}
		return append(full, '\n')
	})
	return f, nil
}

// outlet holds the newest frame for any number of subscribers.
type outlet struct {
	mu   sync.Mutex
	cur  *frame
	subs map[*subscriber]struct{}
}

// subscriber is one listener's slot. It has no queue: whoever is slow reads the
// newest frame and misses those between.
type subscriber struct {
	out     *outlet
	wake    chan struct{}
	last    *frame
	sentRev int64
	sent    bool
}

// staleAfter is how old a frame may be and still be given to a new subscriber:
// to one that has heard nothing yet, the last word of a stalled publisher would
// look like a sign of life.
const staleAfter = time.Second

func (o *outlet) publish(f *frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cur = f
	for s := range o.subs {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (o *outlet) current() *frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cur
}

func (o *outlet) subscribe() *subscriber {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &subscriber{out: o, wake: make(chan struct{}, 1)}
	if o.cur != nil {
		if time.Since(o.cur.at) < staleAfter {
			s.wake <- struct{}{}
		} else {
			s.last = o.cur
		}
	}
	if o.subs == nil {
		o.subs = map[*subscriber]struct{}{}
	}
	o.subs[s] = struct{}{}
	return s
}

func (s *subscriber) close() {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	delete(s.out.subs, s)
}

// next returns the line to send after a wake-up, or nil when the newest frame
// was sent already.
func (s *subscriber) next() []byte {
	f := s.out.current()
	if f == nil || f == s.last {
		return nil
	}
	s.last = f
	if rev := f.beat.TermRev; !s.sent || rev == 0 || rev != s.sentRev {
		s.sent, s.sentRev = true, rev
		return f.full()
	}
	return f.slim
}

// decoder reads the lines of one stream.
type decoder struct {
	rev  int64
	term *cluster.Term
}

func (d *decoder) decode(line []byte) (cluster.Beat, error) {
	var b cluster.Beat
	if err := json.Unmarshal(bytes.TrimSpace(line), &b); err != nil {
		return b, fmt.Errorf("decode beat: %w", err)
	}
	switch {
	case b.Term != nil:
		d.rev, d.term = b.TermRev, b.Term
	case d.term != nil && b.TermRev == d.rev:
		b.Term = d.term
	}
	return b, nil
}
