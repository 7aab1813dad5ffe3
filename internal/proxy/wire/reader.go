package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Reader reads messages of a server while it logs in, with few system calls.
// What it has read too far is given back by Rest.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int
}

// NewReader makes a Reader.
func NewReader(r io.Reader) *Reader { return &Reader{r: r, buf: make([]byte, 4096)} }

// Next reads a message of at most max bytes. The body is valid until the next call.
func (r *Reader) Next(max int) (typ byte, body []byte, err error) {
	if err := r.need(headerLen); err != nil {
		return 0, nil, err
	}
	typ = r.buf[r.start]
	n := int64(binary.BigEndian.Uint32(r.buf[r.start+1:])) - 4
	if n < 0 || n > int64(max) {
		return 0, nil, fmt.Errorf("%w: message %q of %d bytes", ErrProtocol, typ, n)
	}
	if err := r.need(headerLen + int(n)); err != nil {
		return 0, nil, err
	}
	body = r.buf[r.start+headerLen : r.start+headerLen+int(n)]
	r.start += headerLen + int(n)
	return typ, body, nil
}

// Rest is what was read beyond the last message.
func (r *Reader) Rest() []byte { return r.buf[r.start:r.end] }

func (r *Reader) need(n int) error {
	for r.end-r.start < n {
		if r.start > 0 {
			r.end = copy(r.buf, r.buf[r.start:r.end])
			r.start = 0
		}
		if n > len(r.buf) {
			r.buf = append(r.buf, make([]byte, n-len(r.buf))...)
		}
		m, err := r.r.Read(r.buf[r.end:])
		r.end += m
		if m == 0 && err != nil {
			return err
		}
	}
	return nil
}
