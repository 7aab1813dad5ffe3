package conv

import (
	"strconv"

	"manada/internal/proxy/classify"
)

// stmt is a prepared statement of a client.
type stmt struct {
	name  string // the client's; "" of the unnamed one
	about classify.Statement
	names uint64 // the version of the names by which it was classified
	sql   string // of a setting
	// body is the Parse message behind the name; "" when it is not kept.
	body  string
	plans uint64 // how many changes there were when the client prepared it
	key   string // of the link that had it last
	// origin is that of one that names others, as the client has it: in it the names
	// are the link's.
	origin string

	before, had *stmt // it is an unnamed one not made yet: those of the client and of the link before it
	bound       bool  // it has been

	deeds   []deed  // what it does to prepared statements
	aliases []alias // by these names

	serial int  // it is the client's how manieth
	dead   bool // it was not made after all
}

// maxKept bounds the texts of prepared statements that are kept for a client, in
// bytes, and maxStatements their number. What is beyond is not known.
const (
	maxKept       = 4 << 20
	maxStatements = 10000
)

// statements are those that a link holds for conversations, under names of our own.
type statements struct {
	names   map[string]*held // by key
	seq     int              // of the last name
	private int              // of the last key that nobody shares
	clock   int
}

type held struct {
	name string
	seq  int // the number in it
	used int
}

// maxHeld is how many a link holds; the one that was not used for longest makes room.
const maxHeld = 200

// use finds a statement, or names it: fresh ones have to be prepared. gone is the
// name of one that has to be closed first.
func (s *statements) use(key string) (name string, fresh bool, gone string) {
	s.clock++
	if h := s.names[key]; h != nil {
		h.used = s.clock
		return h.name, false, ""
	}
	if s.names == nil {
		s.names = map[string]*held{}
	}
	if len(s.names) >= maxHeld {
		gone = s.oldest()
	}
	s.seq++
	h := &held{name: string(prefix) + strconv.Itoa(s.seq), seq: s.seq, used: s.clock}
	s.names[key] = h
	return h.name, true, gone
}

// oldest makes room.
func (s *statements) oldest() (name string) {
	least, key := s.clock+1, ""
	for k, h := range s.names {
		if h.used < least {
			least, key = h.used, k
		}
	}
	name = s.names[key].name
	delete(s.names, key)
	return name
}

// lost forgets a statement that was not prepared after all.
func (s *statements) lost(key string) { delete(s.names, key) }

// clear forgets all up to the one with that number, as DISCARD ALL and DEALLOCATE ALL do.
func (s *statements) clear(seq int) {
	for key, h := range s.names {
		if h.seq <= seq {
			delete(s.names, key)
		}
	}
}
