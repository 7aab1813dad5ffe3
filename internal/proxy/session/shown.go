package session

import (
	"time"

	"manada/internal/proxy/console"
	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool/rules"
)

// holding is what a session has of the pools at a moment.
type holding struct {
	state  string // active, idle, waiting
	server uint64
	wait   time.Duration
}

// held says what each session that shares has.
func (p *pools) held() map[*session]holding {
	all := map[*session]holding{}
	p.desk.View(func(b *rules.Book, now rules.Moment) {
		for _, v := range b.Servers(now) {
			if v.Holder != nil {
				all[v.Holder.Data.(*taker).session] = holding{state: "active", server: idOf(v.Server)}
			}
		}
		b.Waiting(now, func(c *rules.Claim, wait time.Duration) {
			all[c.Data.(*taker).session] = holding{state: "waiting", wait: wait}
		})
	})
	for _, one := range p.registry.list() {
		if _, has := all[one]; !has && one.shared != nil {
			all[one] = holding{state: "idle"}
		}
	}
	return all
}

// idOf is the server's ID in the console: PostgreSQL gives no process two of them.
func idOf(s *rules.Server) uint64 {
	if one, ok := s.Data.(*loop.Server); ok {
		return sharedID | uint64(backendOf(one).pid)&(1<<clientBits-1)
	}
	return sharedID
}

// serverList shows the servers of the pools.
func (p *pools) serverList() (out []console.Server) {
	p.desk.View(func(b *rules.Book, now rules.Moment) {
		at := func(m rules.Moment) time.Time { return time.Now().Add(m - now) }
		for _, v := range b.Servers(now) {
			s := console.Server{ID: idOf(v.Server), User: v.User, Database: v.Database, Replication: "none", State: v.State,
				Connected: at(v.Opened), Requested: at(v.Since), CloseNeeded: v.CloseNeeded}
			if one, ok := v.Server.Data.(*loop.Server); ok {
				s.Addr, s.PID = backendOf(one).addr, backendOf(one).pid
			}
			if v.Holder != nil {
				client := v.Holder.Data.(*taker).session
				s.Client, s.ApplicationName = client.about.id, client.about.application
			}
			out = append(out, s)
		}
	})
	return out
}
