package loop

import (
	"encoding/binary"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/wire"
)

// frames stands for a conversation where only the loop is looked at: the client's
// bytes are messages, of which it passes on whole ones, and what is there of a
// large one; the server's pass as they come. A message of type W wants a server
// first, A arms a timer, E ends the client. With takes it takes a server that is at
// hand.
type frames struct {
	main    bool
	takes   bool
	stopped bool
	left    int // of a large message, still to come
	out     []byte
}

const large = 2000

func (f *frames) Runs() conv.Side { return conv.Client }

func (f *frames) Busy() conv.Busy {
	if f.left > 0 {
		return conv.Working
	}
	return conv.Quiet
}

func (f *frames) Step(ev conv.Event, fx *conv.Effects) int {
	add := func(e conv.Effect) { fx.List = append(fx.List, e) }
	switch ev.Kind {
	case conv.Granted:
		f.main = true
		if f.stopped {
			f.stopped = false
			add(conv.Effect{Kind: conv.Start, Side: conv.Client})
		}
	case conv.Bytes:
		if ev.Side != conv.Client {
			add(conv.Effect{Kind: conv.Send, Side: conv.Client, B: ev.Bytes})
			return len(ev.Bytes)
		}
		if f.takes && !f.main && ev.Link != nil {
			f.main = true
			add(conv.Effect{Kind: conv.Take, Side: conv.Main})
		}
		return f.fromClient(ev.Bytes, add)
	case conv.Gone:
		if ev.Side != conv.Client {
			f.main = false
			f.end(wire.Fatal("57P01", "the server is gone", ""), add)
			return 0
		}
		f.end(nil, add)
	case conv.Kill, conv.Denied:
		f.end(ev.Err, add)
	case conv.Shutdown:
		f.end(wire.Fatal("57P01", "shutdown", ""), add)
	case conv.SendsNoMore: // as the real one: one that is not there refuses it
		add(conv.Effect{Kind: conv.Send, Side: conv.Client, B: []byte("there?")})
	case conv.Expired:
		add(conv.Effect{Kind: conv.Send, Side: conv.Client, B: []byte("expired")})
	}
	return 0
}

func (f *frames) fromClient(b []byte, add func(conv.Effect)) int {
	n := 0
	for n < len(b) {
		rest := b[n:]
		if f.left > 0 {
			k := min(f.left, len(rest))
			f.left -= k
			n += k
			continue
		}
		if len(rest) < 5 {
			break
		}
		total := 1 + int(binary.BigEndian.Uint32(rest[1:]))
		if !f.main {
			if !f.stopped {
				f.stopped = true
				add(conv.Effect{Kind: conv.Stop, Side: conv.Client})
				add(conv.Effect{Kind: conv.Want, Side: conv.Main})
			}
			break
		}
		if len(rest) < total && total < large {
			break
		}
		k := min(total, len(rest))
		n, f.left = n+k, total-k
		switch rest[0] {
		case 'E':
			add(conv.Effect{Kind: conv.Send, Side: conv.Main, B: b[:n]})
			f.end(nil, add)
			return n
		case 'A':
			add(conv.Effect{Kind: conv.Arm, Timer: conv.IdleTimer, D: 1})
		}
	}
	if n > 0 {
		add(conv.Effect{Kind: conv.Send, Side: conv.Main, B: b[:n]})
	}
	return n
}

func (f *frames) end(e *wire.Error, add func(conv.Effect)) {
	if e != nil {
		add(conv.Effect{Kind: conv.Send, Side: conv.Client, B: e.Append(nil)})
	}
	if f.main {
		add(conv.Effect{Kind: conv.Give, Side: conv.Main, How: conv.Close})
	}
	add(conv.Effect{Kind: conv.End})
}

func frame(typ byte, body []byte) []byte { return wire.AppendMessage(nil, typ, body) }
