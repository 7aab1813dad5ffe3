package peer

import (
	"maps"
	"slices"
	"sync"
	"time"

	"manada/internal/cluster"
)

// Heard is the newest beat of one node. The term it points to is shared and
// must not be changed.
type Heard struct {
	Beat cluster.Beat
	// At is when it arrived here, with a monotonic reading.
	At time.Time
	// Direct is when the node itself was last heard, whatever others say of it;
	// before that ever happened, when it was first heard of.
	Direct time.Time
	// Broken says that the connection over which it came has ended since: a
	// sign, ahead of any time-out, that the process or its host is gone.
	Broken bool
}

// Who beats.
const (
	FromAgent    = "agent"
	FromGuardian = "guardian"
)

// Stats counts what arrived since the start.
type Stats struct {
	Accepted     int64 `json:"accepted"`
	Stale        int64 `json:"stale"`         // older than, or the same as, what was known
	WrongNode    int64 `json:"wrong_node"`    // under a name that is not the certificate's
	WrongCluster int64 `json:"wrong_cluster"` // of another herd
	Malformed    int64 `json:"malformed"`
}

type speaker struct{ node, from string }

type entry struct {
	heard  Heard
	stream uint64 // that delivered it; 0: hearsay
	// past boots of this speaker: a late line of a process that was replaced
	// must not undo what its successor said.
	past []string
}

const pastBoots = 8

// inbox keeps the newest beat of every speaker.
type inbox struct {
	cluster string
	self    string // beats of this node's own agent are not heard, but published
	changed chan struct{}

	mu      sync.Mutex
	entries map[speaker]*entry
	stats   Stats
	streams uint64
	term    *cluster.Term // the newest ever heard
	termRev int64
}

func newInbox(clusterName, self string) *inbox {
	return &inbox{
		cluster: clusterName, self: self,
		changed: make(chan struct{}, 1),
		entries: map[speaker]*entry{},
	}
}

// stream opens a source of beats whose bearer proved to be certNode.
func (in *inbox) stream(certNode string) *source {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.streams++
	return &source{in: in, id: in.streams, node: certNode}
}

// source is one connection that delivers beats.
type source struct {
	in   *inbox
	id   uint64
	node string
	dec  decoder
}

// line takes one line of the stream and says whether it was accepted.
func (s *source) line(line []byte) bool {
	b, err := s.dec.decode(line)
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	st := &s.in.stats
	switch {
	case err != nil || b.From != FromAgent && b.From != FromGuardian:
		st.Malformed++
	case b.Node != s.node:
		st.WrongNode++
	case b.Cluster != s.in.cluster:
		st.WrongCluster++
	case b.Node == s.in.self && b.From == FromAgent:
		st.Stale++
	default:
		return s.in.accept(b, time.Now(), s.id)
	}
	return false
}

// close marks what this stream delivered last as broken.
func (s *source) close() {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	for _, e := range s.in.entries {
		if e.stream == s.id && !e.heard.Broken {
			e.heard.Broken = true
			s.in.notify()
		}
	}
}

// accept is called with the lock held.
func (in *inbox) accept(b cluster.Beat, at time.Time, stream uint64) bool {
	k := speaker{b.Node, b.From}
	e := in.entries[k]
	if e != nil && stream != 0 {
		e.heard.Direct = at
	}
	if e == nil {
		e = &entry{heard: Heard{Direct: time.Now()}}
		in.entries[k] = e
	} else if old := &e.heard.Beat; old.Boot == b.Boot && b.Seq <= old.Seq || slices.Contains(e.past, b.Boot) {
		if old.Boot == b.Boot && b.Seq == old.Seq && e.stream == 0 {
			e.stream = stream // known by hearsay first; now the node's own word
		}
		in.stats.Stale++
		return false
	} else if old.Boot != b.Boot {
		e.past = append(e.past, old.Boot)
		e.past = e.past[max(0, len(e.past)-pastBoots):]
	}
	in.stats.Accepted++
	if newerTerm(in.term, in.termRev, &b) {
		in.term, in.termRev = b.Term, b.TermRev
	}
	news := e.heard.Broken || matters(&e.heard.Beat, &b)
	e.heard, e.stream = Heard{Beat: b, At: at, Direct: e.heard.Direct}, stream
	if news {
		in.notify()
	}
	return true
}

// hearsay merges a row of somebody's view: as good as a beat when it is newer
// than what was heard from the node itself.
func (in *inbox) hearsay(r Row, now time.Time) {
	if r.Cluster != in.cluster || r.From != FromAgent && r.From != FromGuardian {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	at := now.Add(-time.Duration(r.AgeMS) * time.Millisecond)
	e := in.entries[speaker{r.Node, r.From}]
	if e != nil && e.heard.Beat.Boot != r.Boot && !at.After(e.heard.At) {
		return
	}
	if e != nil && e.heard.Beat.Boot == r.Boot && r.Seq <= e.heard.Beat.Seq {
		if r.Seq == e.heard.Beat.Seq && e.stream == 0 && r.Broken && !e.heard.Broken {
			e.heard.Broken = true // nobody has told us more, and now it broke there too
			in.notify()
		}
		return
	}
	if in.accept(r.Beat, at, 0) {
		in.entries[speaker{r.Node, r.From}].heard.Broken = r.Broken
	}
}

func (in *inbox) notify() {
	select {
	case in.changed <- struct{}{}:
	default:
	}
}

// from returns the newest beats of all agents, or of all guardians.
func (in *inbox) from(who string) map[string]Heard {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make(map[string]Heard, len(in.entries))
	for k, e := range in.entries {
		if k.from == who {
			out[k.node] = e.heard
		}
	}
	return out
}

// direct returns when each agent was last heard over a connection to itself
// that still works.
func (in *inbox) direct() map[string]time.Time {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := map[string]time.Time{}
	for k, e := range in.entries {
		if k.from == FromAgent && e.stream != 0 && !e.heard.Broken {
			out[k.node] = e.heard.At
		}
	}
	return out
}

// keep forgets every node that is not named.
func (in *inbox) keep(nodes map[string]bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := len(in.entries)
	maps.DeleteFunc(in.entries, func(k speaker, _ *entry) bool { return !nodes[k.node] })
	if len(in.entries) != n {
		in.notify()
	}
}

func (in *inbox) newestTerm() (*cluster.Term, int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.term, in.termRev
}

func (in *inbox) counters() Stats {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stats
}

// rows is the view, sorted by node and speaker.
func (in *inbox) rows(now time.Time) []Row {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make([]Row, 0, len(in.entries)+1)
	for _, e := range in.entries {
		out = append(out, Row{Beat: e.heard.Beat, AgeMS: now.Sub(e.heard.At).Milliseconds(), Broken: e.heard.Broken})
	}
	return out
}
