package conv

// kind of a message that was sent to a server, by the answers that it takes.
type kind uint8

const (
	none     kind = iota
	parse         // 1
	bind          // 2
	describe      // t, then T or n
	portal        // T or n
	execute       // rows, then C, I or s; or a COPY, then C
	closing       // 3
	syncing       // Z
	query         // all there is, then Z
	call          // V, then Z
	copyEnd       // nothing: it ends COPY's data, if the server reads any
)

// entry is a message that a server has to answer.
type entry struct {
	kind kind
	ours bool // the proxy sent it: the answer is for nobody
	// local is the type of the answer that the proxy gives itself, as soon as all
	// before it is answered: the server was not asked.
	local byte
	mid   bool  // its first answer came
	note  *note // what its answer means to the conversation; usually nothing
}

// queue holds the entries in the order in which they were sent.
type queue struct {
	ring    []entry // its length is a power of two
	head, n int
}

func (q *queue) at(i int) *entry { return &q.ring[(q.head+i)&(len(q.ring)-1)] }

func (q *queue) push(e entry) {
	if q.n == len(q.ring) {
		bigger := make([]entry, max(8, 2*q.n))
		for i := range q.n {
			bigger[i] = *q.at(i)
		}
		q.ring, q.head = bigger, 0
	}
	q.n++
	*q.at(q.n - 1) = e
}

func (q *queue) pop() entry {
	e := *q.at(0)
	*q.at(0) = entry{}
	q.head, q.n = (q.head+1)&(len(q.ring)-1), q.n-1
	if q.n == 0 && len(q.ring) > 64 {
		q.ring, q.head = nil, 0
	}
	return e
}

// batch says whether all in the queue are of one batch that has executed nothing yet.
func (q *queue) batch() bool {
	for i := range q.n {
		switch q.at(i).kind {
		case parse, bind, describe, portal, closing:
		default:
			return false
		}
	}
	return q.n < 16
}

// remove takes out the entry at i.
func (q *queue) remove(i int) {
	for ; i < q.n-1; i++ {
		*q.at(i) = *q.at(i + 1)
	}
	*q.at(q.n - 1) = entry{}
	q.n--
}

// front is the entry that the next answer is for.
func (q *queue) front() *entry {
	for q.n > 0 && q.at(0).kind == copyEnd {
		q.pop()
	}
	if q.n == 0 {
		return nil
	}
	return q.at(0)
}

// sent notes that a message goes to the server. The server skips what follows an
// error up to a Sync, and Sync inside COPY's data.
func (l *Link) sent(e entry) {
	switch e.kind {
	case none:
		return
	case copyEnd:
		if l.copying {
			l.copying = false
		} else if l.q.n > 0 && !l.failing {
			l.q.push(e)
		}
		return
	case syncing:
		if l.copying {
			return
		}
		l.failing, l.tail = false, false
	case query, call:
		if l.failing {
			return
		}
		l.tail = false
	default:
		l.tail = true
		if l.failing {
			return
		}
	}
	l.q.push(e)
}

// answer finds whose answer a message is, and whether it is the last one. Not ok:
// nobody's.
func (l *Link) answer(typ byte) (who entry, last, ok bool) {
	e := l.q.front()
	if e == nil {
		return entry{}, false, false
	}
	switch e.kind {
	case query:
		last, ok = typ == 'Z', queryAnswers[typ]
	case execute:
		last, ok = typ == 'C' || typ == 'I' || typ == 's', executeAnswers[typ]
	case parse:
		last, ok = true, typ == '1'
	case bind:
		last, ok = true, typ == '2'
	case closing:
		last, ok = true, typ == '3'
	case syncing:
		last, ok = true, typ == 'Z'
	case portal:
		last, ok = true, typ == 'T' || typ == 'n'
	case describe:
		last = e.mid
		ok = !e.mid && typ == 't' || e.mid && (typ == 'T' || typ == 'n')
	case call:
		last, ok = typ == 'Z', typ == 'Z' || typ == 'V' && !e.mid
	}
	if !ok {
		return entry{}, false, false
	}
	who = *e
	e.mid = true
	switch typ {
	case 'G', 'W':
		l.reads()
	case 'C', 'Z':
		l.copying = false
	}
	if last {
		l.q.pop()
	}
	return who, last, true
}

func answers(types string) (a [256]bool) {
	for _, t := range []byte(types) {
		a[t] = true
	}
	return a
}

var (
	queryAnswers   = answers("TDCIGHWdcZ")
	executeAnswers = answers("DCIsGHWdc")
)

// reads notes that the server begins to read COPY's data: it drops each Sync up to
// their end, also one that was sent before.
func (l *Link) reads() {
	l.copying = true
	for l.q.n > 1 && l.q.at(1).kind == syncing {
		l.q.remove(1)
	}
	if l.q.n > 1 && l.q.at(1).kind == copyEnd {
		l.q.remove(1)
		l.copying = false
	}
	if l.q.at(0).kind == execute {
		last := l.q.at(l.q.n - 1).kind
		l.tail = last != syncing && last != query && last != call
	}
}

// error notes an ErrorResponse that does not end the connection and returns whose
// it is. What was sent behind it up to a Sync is skipped, and given to lost.
func (l *Link) error(lost func(entry)) (who entry, ok bool) {
	l.failed, l.copying = true, false
	e := l.q.front()
	if e == nil {
		return entry{}, false
	}
	who = *e
	switch e.kind {
	case query, call, syncing:
		e.mid = true
		return who, true
	}
	n := 0
	for n < l.q.n && l.q.at(n).kind != syncing {
		n++
	}
	for i := n - 1; i >= 0; i-- { // each undoes what it did to those before it
		lost(*l.q.at(i))
	}
	for range n {
		l.q.pop()
	}
	if l.q.n == 0 {
		l.failing, l.tail = true, true
	}
	return who, true
}

// abandon gives all that is owed to lost, the last first.
func (l *Link) abandon(lost func(entry)) {
	for i := l.q.n - 1; i >= 0; i-- {
		lost(*l.q.at(i))
	}
	l.q = queue{}
}

// ready notes a ReadyForQuery.
func (l *Link) ready(status byte) (failed bool) {
	failed = l.failed
	l.status, l.failed = status, false
	return failed
}
