package rules

// links make something an element of a list.
type links[T any] struct{ prev, next *T }

// list is a queue of elements that know their neighbours: nothing is allocated to
// come and go.
type list[T any] struct {
	first, last *T
	n           int
}

func (l *list[T]) push(e *T, of func(*T) *links[T]) {
	k := of(e)
	k.prev, k.next = l.last, nil
	if l.last != nil {
		of(l.last).next = e
	} else {
		l.first = e
	}
	l.last = e
	l.n++
}

// insert puts e behind after, or first when that is nil.
func (l *list[T]) insert(e, after *T, of func(*T) *links[T]) {
	if after == l.last {
		l.push(e, of)
		return
	}
	k := of(e)
	k.prev = after
	if after == nil {
		k.next, l.first = l.first, e
	} else {
		k.next = of(after).next
		of(after).next = e
	}
	of(k.next).prev = e
	l.n++
}

func (l *list[T]) remove(e *T, of func(*T) *links[T]) {
	k := of(e)
	if k.prev != nil {
		of(k.prev).next = k.next
	} else {
		l.first = k.next
	}
	if k.next != nil {
		of(k.next).prev = k.prev
	} else {
		l.last = k.prev
	}
	*k = links[T]{}
	l.n--
}

func ofClaim(c *Claim) *links[Claim]    { return &c.links }
func ofPool(p *Pool) *links[Pool]       { return &p.links }
func ofServer(s *Server) *links[Server] { return &s.links }
func ofNode(s *Server) *links[Server]   { return &s.all }
