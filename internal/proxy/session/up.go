package session

import (
	"bytes"
	"errors"
	"io"

	"manada/internal/proxy/split"
	"manada/internal/proxy/wire"
)

// up takes what the client sends to whoever answers it.
func (s *session) up() {
	if s.walsender {
		s.upWalsender()
		return
	}
	in := intake{src: newSource(s.client)}
	defer in.src.release()
	defer s.closeSecond()
	var scan wire.ClientScan
	for {
		err := in.fill()
		for len(in.held()) > 0 {
			step := s.next(in.held())
			if step.Do == split.More {
				break
			}
			if !s.take(&scan, step, in.held()[:step.N]) {
				return // what the server said last is still being read by down
			}
			in.consume(step.N)
		}
		if err != nil {
			if b := in.held(); len(b) > 0 && !s.forward(&scan, split.Step{}, b) { // half a message
				return
			}
			s.owed.left.Store(true)
			s.hangUp(err)
			return
		}
	}
}

// next asks what to do with what the client has sent.
func (s *session) next(b []byte) split.Step {
	free := !s.owed.any()
	if free {
		if failed := s.owed.errors.Load(); !s.settled() {
			s.track.Settle(failed != s.second.errors)
			s.second.errors, s.second.asked = failed, s.owed.asked.Load()
		}
	}
	status := byte(s.owed.status.Load())
	return s.track.Next(b, free && status == 'I', free && status != 'E')
}

// settled says whether nothing was asked since the tracker was told of the outcome.
func (s *session) settled() bool { return s.second.asked == s.owed.asked.Load() }

// take does what the tracker said. It returns false when the session is over.
func (s *session) take(scan *wire.ClientScan, step split.Step, b []byte) bool {
	switch step.Do {
	case split.Answer:
		return s.answer(b)
	case split.Offer:
		switch s.offer(step.Unit, b) {
		case offerAnswered:
			s.track.Answered(step.Unit)
			return true
		case offerOver:
			return false
		}
		s.Stats.read(s.node, step.Unit.Queries)
		return s.decline(scan, b)
	}
	return s.forward(scan, step, b)
}

// decline gives a unit to the primary that a standby might have answered.
func (s *session) decline(scan *wire.ClientScan, b []byte) bool {
	before, wrote := s.track.Queries, s.track.Wrote
	defer func() { s.track.Wrote, s.second.seen = wrote, true }()
	for len(b) > 0 {
		step := s.track.Next(b, false, false)
		if step.Do != split.Forward {
			return false // not possible: the unit is whole
		}
		s.track.Queries = before // counted already
		if !s.forward(scan, step, b[:step.N]) {
			return false
		}
		b = b[step.N:]
	}
	return true
}

// forward passes a step's bytes on to the first server.
func (s *session) forward(scan *wire.ClientScan, step split.Step, b []byte) bool {
	if n := s.track.Queries; n > 0 {
		s.track.Queries = 0
		s.Stats.read(s.node, n)
	}
	if step.Instead != nil {
		b = step.Instead
	}
	scan.CopyIn(s.owed.copyIns.Load(), s.owed.copyIn.Load())
	s.watch.announce(step, scan.Asked)
	if step.Before != nil {
		b = append(bytes.Clone(step.Before), b...)
	}
	scan.Feed(b)
	// Before the server can answer, so that nobody believes that nothing is owed.
	s.owed.reads.Store(s.track.OnlyReads())
	s.owed.tail.Store(scan.Tail)
	s.owed.asked.Store(scan.Asked)
	if scan.Left {
		s.owed.left.Store(true)
	}
	if _, err := s.server.Write(b); err != nil {
		return false
	}
	s.Stats.FromClients[s.port].Add(int64(len(b)))
	return true
}

// answer answers by itself.
func (s *session) answer(unit []byte) bool {
	s.out.Lock()
	defer s.out.Unlock()
	if s.over || s.torn {
		return false
	}
	out := s.track.Answer(unit, s.poolNodes(), byte(s.owed.status.Load()))
	_, err := s.client.Write(out)
	return err == nil
}

// hangUp passes the client's end of stream on, or its disappearance.
func (s *session) hangUp(err error) {
	if w, ok := s.server.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) && w.CloseWrite() == nil {
		return
	}
	s.server.Close()
}

// intake is what the client has sent and was not dealt with yet. It usually
// fits into the source's buffer; a long unit that is waited for does not.
type intake struct {
	src *source
	big []byte
}

func (in *intake) held() []byte {
	if in.big != nil {
		return in.big
	}
	return in.src.held()
}

// fill reads once.
func (in *intake) fill() error {
	if in.big == nil && in.src.n == bufferSize {
		in.big = append(make([]byte, 0, 2*bufferSize), in.src.held()...)
		in.src.consume(in.src.n)
	}
	err := in.src.fill()
	if in.big != nil {
		in.big = append(in.big, in.src.held()...)
		in.src.consume(in.src.n)
	}
	return err
}

func (in *intake) consume(n int) {
	if in.big == nil {
		in.src.consume(n)
		return
	}
	if in.big = in.big[n:]; len(in.big) == 0 {
		in.big = nil
	}
}
