package sim

import (
	"manada/internal/cluster"
)

// node is a host.
type node struct {
	i       int
	name    string
	witness bool

	hostUp        bool
	hostAt        int64 // when a crashed host comes back
	frozenUntil   int64 // SIGSTOP of everything on it
	storeCutUntil int64

	d  disk
	pg *postgres
	// The rendered connection to the upstream, on disk, and its credential.
	upstream   string
	upTo       int
	credential bool
	syncFile   cluster.SyncSetting // in the run directory: gone with the host

	falseUpto int // how far strangers have pushed what this primary released

	leaveBy int64 // the host is being stopped, in order if possible; 0: it is not
	downFor int64
	ending  bool // PostgreSQL is being stopped for good

	a       *agent // nil: not running
	agentAt int64  // when it is started again
}

// disk is what survives every crash: everything that was flushed.
type disk struct {
	instance    string
	empty       bool
	poisoned    bool
	former      bool
	cleanStop   bool
	wal         wal
	behind      wal // old records in the file, behind the end of the log
	maxTimeline cluster.Timeline
	// Made anew from the leader of that epoch and not consistent before its log
	// reaches consistentAt: pages were copied that later WAL belongs to.
	remade       uint64
	consistentAt int
	promised     uint64 // beside PGDATA
	highEpoch    uint64
}

func (n *node) runs(now int64) bool { return n.hostUp && n.frozenUntil <= now }

// answers says whether packets to its PostgreSQL are read.
func (n *node) answers(now int64) bool {
	return n.runs(now) && n.pg != nil && n.pg.hungUntil <= now
}

// nonce of the newest control row that has been replayed.
func (w *world) controlNonce(n *node) string {
	upto := len(n.d.wal)
	if n.pg != nil && n.pg.phase != primary {
		upto = n.pg.replay
	}
	for i := upto - 1; i >= 0; i-- {
		if n.d.wal[i].kind == control {
			return w.nonces[n.d.wal[i].nonce]
		}
	}
	return ""
}

// state as the agent on the same host observes it.
func (n *node) state(now int64) cluster.PostgresState {
	p := n.pg
	switch {
	case p == nil && n.d.empty:
		return cluster.PostgresDown
	case p == nil:
		return cluster.PostgresDown
	case p.phase == dying:
		return cluster.PostgresDying
	case p.hungUntil > now:
		return cluster.PostgresHung
	case p.phase == starting:
		return cluster.PostgresStarting
	case p.phase == primary:
		return cluster.PostgresPrimary
	case p.phase == stopping:
		return cluster.PostgresStopping
	}
	return cluster.PostgresStandby
}
