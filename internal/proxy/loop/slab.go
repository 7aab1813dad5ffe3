package loop

const chunk = 256

// slab holds slots that are found by number and never move. Zero is no slot.
type slab[T any] struct {
	chunks []*[chunk]T
	free   []uint32
	next   uint32
}

// get returns a free slot as put left it.
func (s *slab[T]) get() (uint32, *T) {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return i, s.at(i)
	}
	s.next++
	if int(s.next/chunk) == len(s.chunks) {
		s.chunks = append(s.chunks, new([chunk]T))
	}
	return s.next, s.at(s.next)
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/chunk][i%chunk] }

func (s *slab[T]) put(i uint32) { s.free = append(s.free, i) }

// each visits all slots, free ones too.
func (s *slab[T]) each(visit func(uint32, *T)) {
	for i := uint32(1); i <= s.next; i++ {
		visit(i, s.at(i))
	}
}
