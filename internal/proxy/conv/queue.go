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
	copyData      // nothing
	copyEnd       // nothing: it ends COPY's data, if the server reads any
)

// entry is a message that a server has to answer.
type entry struct {
	kind kind
	ours bool // the proxy sent it: the answer is for nobody
	// local is the type of the answer that the proxy gives itself, as soon as all
	// before it is answered: the server was not asked.
	local byte
	mid   bool // its first answer came
	// late is a Sync behind data of a COPY. The server drops each that it reads within
	// a COPY, but it does not when that failed at data before it: maybe.
	late, maybe bool
	fills       bool  // it is a Query, or a Bind of the unnamed portal
	bare        bool  // the unnamed portal was before it
	plain       *stmt // the unnamed statement that it makes
	uses        *stmt // the client's, which the link has under another name
	note        *note // what its answer means to the conversation; usually nothing
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
	case copyData:
		l.data = true
		return
	case copyEnd:
		if l.copying {
			l.copying = false
		} else if l.q.n > 0 && !l.failing {
			l.q.push(e)
		}
		return
	case syncing:
		e.late = l.data
		if l.copying {
			if e.maybe = e.late; e.maybe {
				l.q.push(e)
			}
			return
		}
		l.failing, l.tail = false, false
	case query, call:
		if l.failing {
			return
		}
		l.tail, l.data = false, false
	default:
		l.tail = true
		l.data = l.data && e.kind != execute
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
	for ; e != nil && e.maybe && typ != 'Z'; e = l.q.front() {
		l.q.pop() // it was dropped
	}
	if e == nil {
		return entry{}, false, false
	}
	if e.maybe {
		return l.q.certain(), true, true
	}
	last, ok = e.takes(typ)
	if !ok {
		return entry{}, false, false
	}
	who = *e
	e.mid = true
	switch typ {
	case 'G', 'W':
		l.reads()
	case 'C':
		l.copying = false
		for l.q.n > 1 && l.q.at(1).maybe { // COPY has taken them
			l.q.remove(1)
		}
	case 'Z':
		l.copying = false
	}
	if last {
		l.q.pop()
	}
	return who, last, true
}

// takes says whether a message answers the entry, and whether it is the last one.
func (e *entry) takes(typ byte) (last, ok bool) {
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
	return last, ok
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
	n := 1
	for l.q.n > n && l.q.at(n).kind == syncing {
		if l.q.at(n).late {
			l.q.at(n).maybe = true
			n++
		} else {
			l.q.remove(n)
		}
	}
	if l.q.n > n && l.q.at(n).kind == copyEnd {
		l.q.remove(n)
		l.copying = false
	}
	if l.q.at(0).kind == execute {
		last := execute
		for i := range l.q.n {
			if e := l.q.at(i); !e.maybe {
				last = e.kind
			}
		}
		l.tail = last != syncing && last != query && last != call
	}
}

// certain takes out the Sync that a ReadyForQuery answers when the one at the front
// may have been dropped: if there is one that was not, it is that.
func (q *queue) certain() entry {
	for i := 0; i < q.n; i++ {
		e := *q.at(i)
		switch {
		case e.kind == copyEnd, e.maybe:
			continue
		case e.kind == syncing:
			q.remove(i)
			return e
		}
		break
	}
	return q.pop()
}

// owes says whether an answer is certain to come.
func (q *queue) owes() bool {
	for i := range q.n {
		if e := q.at(i); !e.maybe && e.kind != copyEnd {
			return true
		}
	}
	return false
}

// error notes an ErrorResponse that does not end the connection and returns whose
// it is. What was sent behind it up to a Sync is skipped, and given to lost.
func (l *Link) error(lost func(entry)) (who entry, ok bool) {
	l.failed, l.copying = true, false
	e := l.q.front()
	for ; e != nil && e.maybe && l.q.owes(); e = l.q.front() {
		l.q.pop()
	}
	if e == nil {
		return entry{}, false
	}
	who = *e
	switch e.kind {
	case query, call, syncing:
		e.mid = true
		return who, true
	}
	if e.plain != nil { // what was there before it is gone, too
		e.plain.before, e.plain.had = nil, nil
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
