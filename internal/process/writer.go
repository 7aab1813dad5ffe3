package process

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/keeper"
	"manada/internal/peer"
	"manada/internal/pki"
)

const (
	writerFresh = 200 * time.Millisecond // how old an answer may be
	beatFresh   = 3 * time.Second        // and the beats in it
)

// Writer says who writes WAL by what this host's own agent has read in the store
// and heard of the leader. Where the agent does not answer, or does not reach
// the store, nobody is named.
func Writer(c *config.Config, id *pki.Identity, log *slog.Logger) func(context.Context) (keeper.Writer, bool) {
	client := peer.Client{TLS: id.TLSFor}
	var mu sync.Mutex
	var asked time.Time
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
		err := client.Call(ctx, c.Addresses().Peer, c.Node, http.MethodGet, "/v1/view", nil, &rows)
		was := known
		asked, last, known = time.Now(), keeper.Writer{}, false
		if err == nil {
			last, known = writerIn(rows, c.Node)
		}
		if was && !known {
			log.Warn("it is not known who leads the herd: WAL is taken from any of its data hosts", "error", err)
		}
		return last, known
	}
}

// writerIn finds the writer in what an agent has heard. The record counts as that
// agent read it itself: what others say of it is a hint.
func writerIn(rows []peer.Row, self string) (w keeper.Writer, ok bool) {
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
	if leader = find(t.Leader); leader != nil && leader.Postgres == cluster.PostgresPrimary && leader.Leads == t.Epoch {
		w.End = leader.WAL.LSN
	}
	return w, true
}
