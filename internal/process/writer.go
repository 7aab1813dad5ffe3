package process

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/keeper"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

const (
	writerFresh = 200 * time.Millisecond // how old an answer may be
	beatFresh   = 3 * time.Second        // and the beats in it
	writerKept  = 10 * time.Second       // how long what was known stands for what is not
)

// Writer says who writes WAL by what this host's own agent has read in the store
// and heard of the leader. Where the agent does not answer, or does not reach
// the store, for longer than writerKept, nobody is named.
func Writer(c *config.Config, id *pki.Identity, log *slog.Logger) func(context.Context) (keeper.Writer, bool) {
	client := peer.Client{TLS: id.TLSFor}
	var mu sync.Mutex
	var asked, knownAt time.Time
	var last keeper.Writer
	var known bool
	return func(ctx context.Context) (keeper.Writer, bool) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(asked) < writerFresh {
			return last, known
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		var rows []peer.Row
		err := client.Call(ctx, c.Addresses().Peer, c.Node, verb.View, nil, &rows)
		was := known
		asked = time.Now()
		if w, ok := writerIn(rows, c.Node, last); ok {
			last, known, knownAt = w, true, asked
		} else if known = known && asked.Sub(knownAt) < writerKept; !known {
			last = keeper.Writer{}
		}
		if was && !known {
			log.Warn("it is not known who leads the herd: WAL is taken from any of its data hosts", "error", err)
		}
		return last, known
	}
}

// writerIn finds the writer in what an agent has heard. The record counts as that
// agent read it itself: what others say of it is a hint. A leader that is not
// heard has written no less than before.
func writerIn(rows []peer.Row, self string, before keeper.Writer) (w keeper.Writer, ok bool) {
	var own, leader *cluster.Beat
	find := func(node string) *cluster.Beat {
		for i := range rows {
			r := &rows[i]
			if r.Node == node && r.From == peer.FromAgent && time.Duration(r.AgeMS)*time.Millisecond < beatFresh {
				return &r.Beat
			}
		}
		return nil
	}
	if own = find(self); own == nil || own.Term == nil || !own.StoreOK {
		return w, false
	}
	t := own.Term
	w = keeper.Writer{Node: t.Leader, Timeline: t.Current().Timeline}
	switch leader = find(t.Leader); {
	case leader == nil && w.Node == before.Node && w.Timeline == before.Timeline:
		w.End = before.End
	case leader != nil && leader.Postgres == cluster.PostgresPrimary && leader.Leads == t.Epoch:
		w.End = leader.WAL.LSN
	}
	return w, true
}
