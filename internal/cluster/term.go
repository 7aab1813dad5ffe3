package cluster

import (
	"slices"
)

// Durability says what a commit waits for and what happens when no standby is
// left to wait for.
type Durability string

const (
	// Quorum waits for k standbys; without any it first writes k = 0 into the
	// term (degrades) and then commits alone.
	Quorum Durability = "quorum"
	// Strict waits for k standbys, always: without them writes wait.
	Strict Durability = "strict"
	// Async waits for nobody.
	Async Durability = "async"
)

// Member is a data directory that may be waited for. Instance is a random id
// written into the directory when it was made (initdb, clone, rewind): another
// directory under the same name is another member (finding H3).
type Member struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
}

// Promise is a member's word that it receives nothing more of Epoch, together
// with all it has: WAL of WALEpoch up to LSN. WALEpoch is the epoch of the last
// record in its WAL, never of the name it bore (finding C7).
type Promise struct {
	Node     string `json:"node"`
	Instance string `json:"instance"`
	Epoch    uint64 `json:"epoch"`
	WALEpoch uint64 `json:"wal_epoch"`
	LSN      LSN    `json:"lsn"`
	// For names the successor when a leader that stopped cleanly hands over
	// (switchover). Empty in every other promise.
	For string `json:"for,omitempty"`
}

// Position is where the promising node's WAL ends.
func (p Promise) Position() Position { return Position{p.WALEpoch, p.LSN} }

// Branch records how an epoch began: who won it, the timeline allocated to it,
// where its WAL forks from that of Parent (the epoch of the winner's last
// record, not always Epoch-1: an epoch may be won and never promoted) and the
// nonce of its control row.
type Branch struct {
	Epoch    uint64   `json:"epoch"`
	Parent   uint64   `json:"parent"`
	Leader   string   `json:"leader"`
	Timeline Timeline `json:"timeline"`
	ForkLSN  LSN      `json:"fork_lsn"`
	Nonce    string   `json:"nonce"`
	// Restored is the id of the order of a restore that began the epoch.
	Restored string `json:"restored,omitempty"`
}

// Lost says that an operator accepted the loss of acknowledged commits: WAL of
// node past From is quarantined until `reinit` (finding H10).
type Lost struct {
	Node string `json:"node"`
	From LSN    `json:"from"`
}

// Term is the record. There is one, under one key that is never deleted; every
// change of it (promise, withdrawal, membership, degrade, win, open) is a
// transaction that compares its modification revision and the system
// identifier, so a delayed write always fails (finding H1).
//
// Invariant: K <= len(Sync), 0 when Sync is empty (finding H7); what strict
// durability wants beyond that is WantK and goes into PostgreSQL only.
// Sync and K describe the last open epoch until this one is open (finding C3).
type Term struct {
	SystemID       string     `json:"system_id"`
	Epoch          uint64     `json:"epoch"`
	Leader         string     `json:"leader"`
	Open           bool       `json:"open"`
	Sync           []Member   `json:"sync"`
	K              int        `json:"k"`
	WantK          int        `json:"want_k"`
	Durability     Durability `json:"durability"`
	Promises       []Promise  `json:"promises"`
	History        []Branch   `json:"history"`
	LastOpenLeader Member     `json:"last_open_leader"`
	Lost           *Lost      `json:"lost"`
	Restore        *Restore   `json:"restore,omitempty"` // the herd is being restored
	Drain          *Drain     `json:"drain,omitempty"`   // a hand-over has been announced
	Since          string     `json:"since"`             // RFC 3339 UTC; for people, never compared
	Reason         string     `json:"reason"`
}

// Clone returns a deep copy.
func (t *Term) Clone() *Term {
	if t == nil {
		return nil
	}
	c := *t
	c.Sync = slices.Clone(t.Sync)
	c.Promises = slices.Clone(t.Promises)
	c.History = slices.Clone(t.History)
	if t.Lost != nil {
		l := *t.Lost
		c.Lost = &l
	}
	if t.Restore != nil {
		r := *t.Restore
		c.Restore = &r
	}
	if t.Drain != nil {
		d := *t.Drain
		c.Drain = &d
	}
	return &c
}

// Branch returns the branch of an epoch.
func (t *Term) Branch(epoch uint64) (Branch, bool) {
	i := slices.IndexFunc(t.History, func(b Branch) bool { return b.Epoch == epoch })
	if i < 0 {
		return Branch{}, false
	}
	return t.History[i], true
}

// Current is the branch of the term's own epoch.
func (t *Term) Current() Branch { b, _ := t.Branch(t.Epoch); return b }

// EpochOf finds the epoch to which a timeline was allocated.
func (t *Term) EpochOf(tl Timeline) (uint64, bool) {
	i := slices.IndexFunc(t.History, func(b Branch) bool { return b.Timeline == tl })
	if i < 0 {
		return 0, false
	}
	return t.History[i].Epoch, true
}

// NextTimeline is one past every timeline ever allocated (finding M7).
func (t *Term) NextTimeline() Timeline {
	var m Timeline
	for _, b := range t.History {
		m = max(m, b.Timeline)
	}
	return m + 1
}

// InSync says whether this very directory is a member of sync.
func (t *Term) InSync(m Member) bool { return slices.Contains(t.Sync, m) }

// SyncNamed finds the member of sync with that name.
func (t *Term) SyncNamed(name string) (Member, bool) {
	i := slices.IndexFunc(t.Sync, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return t.Sync[i], true
}

// PromiseOf finds the promise of a node.
func (t *Term) PromiseOf(name string) (Promise, bool) {
	i := slices.IndexFunc(t.Promises, func(p Promise) bool { return p.Node == name })
	if i < 0 {
		return Promise{}, false
	}
	return t.Promises[i], true
}

// LastWord is the promise that the leader of an open epoch left when it was
// stopped in order while it committed alone: it names nobody, and nothing was or
// will be acknowledged past it.
func (t *Term) LastWord() (Promise, bool) {
	p, ok := t.PromiseOf(t.Leader)
	ok = ok && t.Open && t.K == 0 && p.For == "" && p.Epoch == t.Epoch && t.LastOpenLeader == Member{p.Node, p.Instance}
	return p, ok
}

// Needed is how many members of sync must have promised before a takeover:
// max(1, |sync| - k + 1).
func (t *Term) Needed() int { return max(1, len(t.Sync)-t.K+1) }

// WALEpoch tells to which epoch the WAL at position l of timeline tl belongs:
// the epoch to which the timeline was allocated, or an ancestor when l does not
// lie past the fork (finding C7). False when the timeline was never allocated.
func (t *Term) WALEpoch(tl Timeline, l LSN) (uint64, bool) {
	e, ok := t.EpochOf(tl)
	if !ok {
		return 0, false
	}
	for {
		b, ok := t.Branch(e)
		if !ok {
			return 0, false
		}
		if b.Parent == 0 || l > b.ForkLSN {
			return e, true
		}
		e = b.Parent
	}
}

// Divergence is where WAL that ends at p left the line to the current epoch: what
// lies past it is on no other node's line. The end itself when it never left;
// the newest fork when p's epoch is not in the history.
func (t *Term) Divergence(p Position) LSN {
	left := map[uint64]LSN{t.Epoch: p.LSN} // where the current line left each of its epochs
	for b, ok := t.Branch(t.Epoch); ok && b.Parent != 0; b, ok = t.Branch(b.Parent) {
		left[b.Parent] = b.ForkLSN
	}
	for e, end := p.Epoch, p.LSN; ; {
		if at, ok := left[e]; ok {
			return min(at, end)
		}
		b, ok := t.Branch(e)
		if !ok {
			return t.Current().ForkLSN
		}
		e, end = b.Parent, b.ForkLSN
	}
}

// IsPrefix says whether WAL that ends at p is a prefix of the history of the
// epoch: p's epoch is the epoch or an ancestor of it, and p does not lie past
// the fork at which the line to the epoch left p's epoch. It is the heart of
// the certificate (finding C1).
func (t *Term) IsPrefix(p Position, epoch uint64) bool {
	for e := epoch; e != 0; {
		if e == p.Epoch {
			return true
		}
		b, ok := t.Branch(e)
		if !ok {
			return false
		}
		if b.Parent == p.Epoch {
			return p.LSN <= b.ForkLSN
		}
		e = b.Parent
	}
	return false
}
