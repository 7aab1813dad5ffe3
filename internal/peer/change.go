package peer

import (
	"slices"

	"manada/internal/cluster"
)

// matters says whether a beat says something that a listener may have to act
// upon at once, compared with the one before. Positions, ages, counters and
// texts for people move all the time and do not.
func matters(old, b *cluster.Beat) bool {
	return state(old) != state(b) ||
		(old.CannotCommit == "") != (b.CannotCommit == "") ||
		(old.Unconfirmed == "") != (b.Unconfirmed == "") ||
		!sameConditions(old.Conditions, b.Conditions)
}

// digest is the part of a beat that is compared as a value.
type digest struct {
	instance, boot, version, kind, upstream, nonce, rejoin, suspects string
	postgres                                                         cluster.PostgresState
	timeline                                                         cluster.Timeline
	leads, certified, frozen                                         uint64
	termRev                                                          int64
	streaming, mayLead, storeOK, paused, leaving                     bool
	addrs                                                            cluster.Addresses
}

func state(b *cluster.Beat) digest {
	return digest{
		instance: b.Instance, boot: b.Boot, version: b.Version, kind: b.Kind,
		upstream: b.Upstream, nonce: b.ControlNonce, rejoin: b.Rejoin, suspects: b.Suspects,
		postgres: b.Postgres, timeline: b.Timeline,
		leads: b.Leads, certified: b.Certified, frozen: b.Frozen, termRev: b.TermRev,
		streaming: b.Streaming, mayLead: b.MayLead, storeOK: b.StoreOK, paused: b.Paused, leaving: b.Leaving,
		addrs: b.Addrs,
	}
}

func sameConditions(a, b []cluster.Condition) bool {
	return slices.EqualFunc(a, b, func(x, y cluster.Condition) bool {
		return x.Code == y.Code && x.Severity == y.Severity && x.Node == y.Node
	})
}
