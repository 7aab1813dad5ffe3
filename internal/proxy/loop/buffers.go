package loop

import "math/bits"

// buffers are what is held for a socket between two events, of sizes that are
// powers of two. A loop keeps some of each size for the next one.
type buffers [sizes][][]byte

const (
	smallest = 9 // 512 bytes
	sizes    = 14
	kept     = 1 << 20 // bytes of each size
)

// get returns an empty buffer with room for n bytes.
func (p *buffers) get(n int) []byte {
	size := max(bits.Len(uint(n-1)), smallest)
	i := size - smallest
	if i >= sizes {
		return make([]byte, 0, n)
	}
	if k := len(p[i]); k > 0 {
		b := p[i][k-1]
		p[i] = p[i][:k-1]
		return b
	}
	return make([]byte, 0, 1<<size)
}

// put takes back what get returned. nil is fine.
func (p *buffers) put(b []byte) {
	i := bits.Len(uint(cap(b))) - 1 - smallest
	if i < 0 || i >= sizes || cap(b) != 1<<(i+smallest) || (len(p[i])+1)*cap(b) > kept {
		return
	}
	p[i] = append(p[i], b[:0])
}

// grow returns b with room for n more bytes.
func (p *buffers) grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	out := append(p.get(len(b)+n), b...)
	p.put(b)
	return out
}
