package decide

import (
	"manada/internal/cluster"
)

// maxRewinds bounds how often a directory is rewound in one epoch: once is enough,
// unless the rewind itself was made in vain.
const maxRewinds = 3

// mustRejoin says whether the directory has to be made anew before it may bear
// a name: "clone", "rewind" or "". A former primary is always rewound, never
// judged; anybody else is judged by the certificate.
func mustRejoin(v *View) string {
	l, t := &v.Local, v.Store.Term
	if r := v.Store.Request; r != nil && r.Kind == "reinit" && r.To == v.Self {
		return "clone"
	}
	switch {
	case l.Empty || l.Poisoned:
		return "clone"
	case l.Remade != 0 && l.Remade != t.Epoch && l.Postgres != cluster.PostgresStandby:
		return "clone" // it needs WAL of an epoch that is over to be consistent
	case l.Former && !v.without(WithoutCertificate):
		return "rewind"
	case l.Upstream == "" && !l.Receiver && l.Final && !certified(v):
		return "rewind"
	case l.StuckFor > v.Spec.RecloneAfter && l.Upstream == cluster.CertifiedName(v.Self, t.Epoch):
		return "clone"
	}
	return ""
}

// certified: this node's WAL is a prefix of the epoch's, judged by where it
// ends when nothing is received any more (C1).
func certified(v *View) bool {
	if v.without(WithoutCertificate) {
		return true
	}
	at := v.Local.WAL
	if c := v.Local.Complete; c != 0 {
		at.LSN = min(at.LSN, c)
	}
	return v.Store.Term.IsPrefix(at, v.Store.Term.Epoch)
}

// leaderReady returns the leader's beat when it can be streamed from or copied.
func leaderReady(v *View) (Peer, bool) {
	t := v.Store.Term
	p, ok := v.peer(t.Leader)
	return p, ok && v.fresh(p) && p.Leads == t.Epoch && p.Postgres == cluster.PostgresPrimary
}

// rejoin makes a diverged, half-made or missing directory anew, only from an
// open leader, and only when the record does not count on what is here.
func rejoin(v *View) (Decision, bool) {
	t, how := v.Store.Term, mustRejoin(v)
	if how == "" || t.Leader == v.Self {
		return Decision{}, false
	}
	d := remake(v, how)
	d.Rejoin = how
	return d, true
}

func remake(v *View, how string) Decision {
	l, t := &v.Local, v.Store.Term
	r := v.Store.Request
	ordered := r != nil && r.Kind == "reinit" && r.To == v.Self
	switch {
	case !t.Open:
		return wait("waiting for epoch %d to open", t.Epoch)
	case t.Lost != nil && t.Lost.Node == v.Self && l.Former && !ordered:
		return wait("quarantined: data loss was accepted from %s on, this directory may hold the only copy; look at it, then `manada reinit %s`", t.Lost.From, v.Self)
	case how == "rewind" && l.Rewound >= maxRewinds:
		d := wait("rewound %d times in epoch %d, and its WAL still is not on the line of %s", l.Rewound, t.Epoch, t.Leader)
		d.Diverges = d.Reason
		return d
	case v.Store.JustOpened && !waitingForMe(t):
		// Copying wants a CHECKPOINT there, and a checkpointer that is busy
		// lets the first commits of the epoch wait (C5).
		return wait("must %s, letting %s open its epoch first", how, t.Leader)
	case t.InSync(v.me()) && ordered && l.Postgres.Up():
		// It leaves sync by being away: the record stops counting on it first.
		return do(Action{Verb: Stop, Mode: "fast", Note: "reinit"}, "to be made anew by order: leaving the synchronous standbys first")
	case t.InSync(v.me()) && !l.Empty:
		return wait("the record still counts on this directory; waiting to be taken out of sync")
	}
	if _, ok := leaderReady(v); !ok {
		return wait("must %s, waiting for %s", how, t.Leader)
	}
	if !v.Store.Reachable || v.Store.ReadAge > v.Spec.FreshRead {
		return do(Action{Verb: ReadStore}, "must %s; asking the store first whether it counts on what is here", how)
	}
	switch {
	case how == "rewind" && l.Postgres.Up():
		return do(Action{Verb: Stop, Mode: "fast", Note: how}, "stopping PostgreSQL, to %s", how)
	case how == "rewind" && !l.TreeEmpty:
		return wait("waiting for the last processes of PostgreSQL to end")
	case how == "rewind":
		return do(Action{Verb: Rewind, To: t.Leader, Epoch: t.Epoch}, "rewinding from %s", t.Leader)
	}
	a := Action{Verb: Clone, To: t.Leader, Epoch: t.Epoch}
	if ordered {
		a.Request = r.ID
	}
	return do(a, "cloning from %s", t.Leader)
}

// waitingForMe: under strict durability the first commits of an epoch that opened
// with nobody wait for a standby in any case.
func waitingForMe(t *cluster.Term) bool { return t.Durability == cluster.Strict && t.K == 0 }

// startRemade: a directory that was just rewound or cloned from this epoch's
// leader needs the WAL that was written meanwhile before it is consistent. It
// gets it under a name that nobody waits for; any other directory would mix two
// histories that way (C1).
func startRemade(v *View) Decision {
	l, t := &v.Local, v.Store.Term
	if _, ok := leaderReady(v); !ok {
		return wait("waiting for %s, whose WAL it needs to be consistent", t.Leader)
	}
	if l.Upstream != cluster.UncertifiedName(v.Self, t.Epoch) {
		return do(Action{Verb: Follow, To: t.Leader, Epoch: t.Epoch, Mode: "uncertified"}, "made anew from %s: following it until consistent", t.Leader)
	}
	if l.Postgres != cluster.PostgresDown {
		return wait("made anew from %s; PostgreSQL is %s until it has all that it needs", t.Leader, l.Postgres)
	}
	return do(Action{Verb: StartStandby}, "starting PostgreSQL as a standby that was made anew")
}

// follow: stream from the leader under the certified name of the epoch.
func follow(v *View) (Decision, bool) {
	l, t := &v.Local, v.Store.Term
	if t.Leader == v.Self {
		return Decision{}, false
	}
	name := cluster.CertifiedName(v.Self, t.Epoch)
	if l.Remade == t.Epoch && (l.Postgres == cluster.PostgresDown || l.Postgres == cluster.PostgresStarting) {
		return startRemade(v), true
	}
	switch {
	case l.Postgres == cluster.PostgresDown && l.Upstream != "":
		return do(Action{Verb: CutUpstream}, "starting without an upstream until certified"), true
	case l.Postgres == cluster.PostgresDown:
		return do(Action{Verb: StartStandby}, "starting PostgreSQL as a standby"), true
	case l.Postgres != cluster.PostgresStandby:
		return wait("PostgreSQL is %s", l.Postgres), true
	case l.Upstream == name:
		return wait("standby of %s in epoch %d", t.Leader, t.Epoch), true
	}
	if _, ok := leaderReady(v); !ok {
		return wait("waiting for %s to run as primary of epoch %d", t.Leader, t.Epoch), true
	}
	if d, ok := cutOff(v); ok {
		return d, true
	}
	if !l.Final {
		return do(Action{Verb: ReadPosition}, "reading where the WAL ends, for the certificate"), true
	}
	return do(Action{Verb: Follow, To: t.Leader, Epoch: t.Epoch}, "certified: following %s in epoch %d", t.Leader, t.Epoch), true
}
