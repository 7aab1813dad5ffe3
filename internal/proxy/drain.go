package proxy

import (
	"context"
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/conv"
	"manada/internal/proxy/route"
)

// A planned switchover as this proxy sees it (protocol-2.md, section 5). The record
// announces it; the proxy obeys by its own clock, and tells the leader's agent how far
// it is.

// obeyed is the drain that was seen last. The zero value has seen none.
type obeyed struct {
	id   string
	seen time.Time // for the first time
	held time.Time // in its second phase, for the first time; zero: not yet
}

// phase says how far the drain of the newest record is, and for how long that stays so
// if nothing is heard; 0: for ever. A drain is obeyed for as long as it says and grace,
// from when this proxy first saw it.
func (o *obeyed) phase(d *route.Drain, now time.Time, grace time.Duration) (conv.Phase, time.Duration) {
	if d == nil {
		return conv.NoDrain, 0
	}
	if d.ID != o.id {
		*o = obeyed{id: d.ID, seen: now}
	}
	if d.Hold && o.held.IsZero() {
		o.held = now
	}
	left := o.seen.Add(ms(d.ForMS) + grace).Sub(now)
	switch held := now.Sub(o.held); {
	case left <= 0:
		return conv.NoDrain, 0
	case o.held.IsZero():
		return conv.Soft, left
	case held < ms(d.HoldMS):
		return conv.Hold, min(left, ms(d.HoldMS)-held)
	}
	return conv.Over, left
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// How often the leader's agent is told of a drain at most: of the hold and of all
// that changes in it, of counts before it, and again after a failure.
const (
	answerPause = 10 * time.Millisecond
	countPause  = 200 * time.Millisecond
	retryPause  = 30 * time.Millisecond
	answerLimit = time.Second // for one answer
)

// answer tells the leader's agent how far this proxy is with a drain, whenever that
// changes, until ctx is done.
func (p *Proxy) answer(ctx context.Context) {
	if p.cfg.AnswerDrain == nil {
		return
	}
	var o obeyed
	var told cluster.DrainAnswer
	complained := "" // of a drain
	for ctx.Err() == nil {
		changed := p.cfg.Topology.Changed()
		d := p.cfg.Topology.Current().Drain
		phase, wait := o.phase(d, time.Now(), p.cfg.DrainGrace)
		now := cluster.DrainAnswer{}
		if phase != conv.NoDrain && d.Agent != "" {
			now = p.answerTo(d)
		}
		if now.ID != "" && now != told {
			wait = answerPause
			if !d.Hold && now.ID == told.ID {
				wait = countPause
			}
			if err := p.tell(ctx, d, now); err != nil {
				if complained != d.ID {
					complained = d.ID
					p.cfg.Log.Warn("the leader's agent was not told of the drain", "leader", d.Leader, "error", err)
				}
				wait = retryPause
			} else {
				told = now
			}
			await(ctx, wait, changed, nil) // the hold is not kept waiting for a count's pause
			continue
		}
		await(ctx, wait, changed, p.sessions.Stirred())
	}
}

func (p *Proxy) tell(ctx context.Context, d *route.Drain, a cluster.DrainAnswer) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	return p.cfg.AnswerDrain(ctx, d, a)
}

// answerTo is how far this proxy is.
func (p *Proxy) answerTo(d *route.Drain) cluster.DrainAnswer {
	w := p.sessions.Work()
	return cluster.DrainAnswer{ID: d.ID, Rev: d.Rev, Hold: d.Hold && w.Phase >= conv.Hold, Open: w.Open, InCommit: w.Committing}
}
