package session

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
)

// What a standby allows is known before it is the primary, also while another one does
// not answer.
func TestCapacityIsKnownAhead(t *testing.T) {
	s := &Server{Options: Options{Loops: 1}, Topology: &route.Holder{}, Log: slog.New(slog.DiscardHandler)}
	s.life, s.end = context.WithCancel(t.Context())
	s.Capacity = func(ctx context.Context, addr string) (pool.Capacity, error) {
		if addr == "mute" {
			<-ctx.Done()
			return pool.Capacity{}, ctx.Err()
		}
		return pool.Capacity{Max: 100, Reserved: 3}, nil
	}
	p := newPools(s)
	defer func() { s.end(); p.desk.Close(); s.work.Wait() }()
	member := func(name string, primary bool) route.Member {
		return route.Member{Node: route.Node{Name: name, Addr: name}, Up: true, Primary: primary}
	}
	v := route.View{Known: true, Open: true, Epoch: 1, Proxies: 1, Primary: route.Node{Name: "a", Addr: "a"},
		Members: []route.Member{member("mute", false), member("a", true), member("b", false)}}
	p.follow(v)
	limit := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.limits["b"]
	}
	for end := time.Now().Add(10 * time.Second); limit() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the standby is not asked")
		}
	}
	v.Epoch, v.Primary = 2, route.Node{Name: "b", Addr: "b"}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.limit(v, v.Primary); got != 100-3-herdNeeds {
		t.Errorf("the new primary's pools begin with %d connections", got)
	}
}
