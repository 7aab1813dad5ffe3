package conversation

import (
	"context"
	"encoding/binary"
	"fmt"

	"math/rand/v2"
	"strings"
)

// Bytes are all messages of a conversation of one client.
func (p *Player) Bytes(c *Conversation) ([]byte, error) {
	var out []byte
	for _, s := range c.Steps {
		if s.Kind != Message {
			continue
		}
		b, err := p.encode(s.Text)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// Garble makes of messages what a broken client might send: bytes that are
// others, missing, or twice there, a length that lies.
func Garble(b []byte, r *rand.Rand) []byte {
	b = append([]byte(nil), b...)
	for range 1 + r.IntN(3) {
		if len(b) < 10 {
			return b
		}
		at := r.IntN(len(b) - 8)
		switch r.IntN(6) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b = append(b[:at], b[at+1+r.IntN(7):]...)
		case 2:
			b = append(b[:at+4:at+4], b[at:]...)
		case 3:
			b = b[:at+1]
		case 4: // of a message, unless it began elsewhere
			binary.BigEndian.PutUint32(b[at+1:], pick(r, 0, 3, 4, 5, 0x7fffffff, 0x80000000, 0xffffffff, uint32(r.IntN(1<<16))))
		case 5:
			b[at] = pick(r, byte(0), 255, 'Q', 'S', 'B', 'X', 'p', 'd')
		}
	}
	return b
}

// PlayBytes logs in, sends bytes, says that this was all, and reads to the end.
func (p *Player) PlayBytes(ctx context.Context, b []byte) (*Transcript, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	run := &play{Player: p, c: &Conversation{}, clients: make([]*client, 1)}
	defer run.close()
	c, err := run.client(ctx, 0)
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() { // what nobody takes must not keep from reading
		_, err := c.Write(b)
		if err == nil {
			err = c.fin()
		}
		sent <- err
	}()
	if err = c.wait("end", 1); err == nil {
		c.Close()
	}
	<-sent // a broken pipe is the other side's right
	if err != nil {
		err = fmt.Errorf("no end: %w", err)
	}
	return run.transcript(), err
}

// framed says whether b is whole messages, of kinds that there are, and the last
// one asks for an answer.
func framed(b []byte) bool {
	last := byte(0)
	for len(b) > 0 {
		if len(b) < 5 || !strings.ContainsRune(messages, rune(b[0])) {
			return false
		}
		n := binary.BigEndian.Uint32(b[1:])
		if n < 4 || int(n) > len(b)-1 {
			return false
		}
		last, b = b[0], b[1+n:]
	}
	return last == 'Q' || last == 'S'
}

// Broken compares what came from both sides for the garbled bytes b. Where they
// are no messages a proxy may give up before all that came earlier is answered; up
// to there both say the same.
func (a *Allowed) Broken(c *Conversation, b []byte, want, got *Transcript) string {
	w, g := upToEnd(want.Lines[0]), upToEnd(got.Lines[0])
	if !framed(b) {
		w = w[:min(len(w), len(g))]
	}
	return a.Differences(c, &Transcript{Lines: [][]string{w}}, &Transcript{Lines: [][]string{g}})
}

func upToEnd(lines []string) []string {
	for i, l := range lines {
		if l == "end" || strings.HasPrefix(l, "E S=FATAL") {
			return lines[:i]
		}
	}
	return lines
}
