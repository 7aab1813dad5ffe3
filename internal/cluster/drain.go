package cluster

// Drain is the leader's announcement that it is about to hand its epoch over. It
// stands in the record, so it reaches everybody with the beats, in the order of
// the record's revisions. It begins soft: everything goes on while the leader
// waits for old transactions. Then Hold is set: proxies begin nothing new on this
// epoch and keep it until the next one is open.
//
// Invariants: it is void in any epoch but its own (in force: Term.Draining); it
// changes no rule of takeover; whoever wins or opens an epoch, and the leader that
// gives it up, clear it.
type Drain struct {
	ID    string `json:"id"`    // random, of this attempt
	Epoch uint64 `json:"epoch"` // that is handed over
	To    string `json:"to"`    // the successor
	// SoftMS: a transaction older than this many milliseconds is waited for
	// before the hold. HoldMS is the most that the hold lasts before
	// transactions that have not sent COMMIT are ended, ForMS what both phases
	// may take together.
	SoftMS int64 `json:"soft_ms"`
	HoldMS int64 `json:"hold_ms"`
	ForMS  int64 `json:"for_ms"`
	Hold   bool  `json:"hold"` // the second phase
}

// Draining is the drain that is in force, nil for none.
func (t *Term) Draining() *Drain {
	if t == nil || t.Drain == nil || !t.Open || t.Drain.Epoch != t.Epoch {
		return nil
	}
	return t.Drain
}

// DrainAnswer is what a proxy tells the leader's agent of its part in a drain,
// each time that it changes: the body of POST /v1/drain.
type DrainAnswer struct {
	ID    string `json:"id"`    // of the drain
	Rev   int64  `json:"rev"`   // of the record in which the proxy saw it
	Proxy string `json:"proxy"` // its node name, as in its certificate
	Boot  string `json:"boot"`  // random id of the proxy's process
	// Hold: the proxy begins nothing new on the epoch any more, in any session.
	Hold bool `json:"hold"`
	// Open counts its sessions with a transaction open or a statement under way
	// on the leader, InCommit those of them that have sent COMMIT and have no
	// answer yet.
	Open     int `json:"open"`
	InCommit int `json:"in_commit"`
}
