package herd

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"manada/internal/config"
)

// portPicker hands out ports of this machine: the default where it is free,
// else the default with 1, 2, ... in front (15432), else the next free one. Told
// from where, it hands out one after the other from there.
type portPicker struct {
	from int // 0: the defaults
	used map[int]bool
	free func(port int) bool
	mark func(port int) (net.Listener, bool) // see reserve
	said []string                            // what differs from the default
	held []net.Listener
}

func newPortPicker(from int) *portPicker {
	return &portPicker{from: from, used: map[int]bool{}, free: portFree, mark: reserve}
}

// portFree says whether nobody listens there.
func portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func (p *portPicker) take(port int) bool {
	if p.used[port] {
		return false
	}
	l, ok := p.mark(port)
	if !ok {
		return false
	}
	p.held = append(p.held, l)
	if !p.free(port) {
		return false // the mark goes with the others
	}
	p.used[port] = true
	return true
}

// reserve keeps a second `up` on this machine from choosing a port on which
// nobody listens yet. The mark is an abstract socket: it ends with its process.
func reserve(port int) (net.Listener, bool) {
	l, err := net.Listen("unix", "@manada-port-"+strconv.Itoa(port))
	return l, err == nil
}

// KeepPorts marks the ports of a host that runs, until ctx ends: a new herd on
// this machine leaves them alone also while a process of the host is down.
func KeepPorts(ctx context.Context, c *config.Config) {
	held := map[int]net.Listener{}
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for used := c.UsedPorts(); len(held) < len(used); {
		for _, u := range used {
			if held[u.Port] != nil {
				continue
			}
			if l, ok := reserve(u.Port); ok { // else the `up` that made us still has it
				held[u.Port] = l
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	<-ctx.Done()
}

// release lets the ports go: the hosts listen, or the herd was not made.
func (p *portPicker) release() {
	for _, l := range p.held {
		l.Close()
	}
	p.held = nil
}

// pick returns a free port for what, preferably want.
func (p *portPicker) pick(what string, want int) (int, error) {
	if p.from > 0 {
		return p.pickNext(what)
	}
	if p.take(want) {
		return want, nil
	}
	for port := want + 10000; port <= 65535; port += 10000 {
		if p.take(port) {
			return p.say(what, want, port), nil
		}
	}
	for port := want + 1; port < want+2000 && port <= 65535; port++ {
		if p.take(port) {
			return p.say(what, want, port), nil
		}
	}
	return 0, fmt.Errorf("no free port for %s near %d", what, want)
}

// pickNext returns the next free port for what.
func (p *portPicker) pickNext(what string) (int, error) {
	want := p.from
	for port := want; port < want+2000 && port <= 65535; port++ {
		if p.take(port) {
			if p.from = port + 1; port != want {
				p.say(what, want, port)
			}
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port for %s from %d on", what, want)
}

func (p *portPicker) say(what string, want, got int) int {
	p.said = append(p.said, fmt.Sprintf("port %d is taken: %s listens on %d", want, what, got))
	return got
}

// pickAll gives a host its ports; defaults names the wanted ones.
func (p *portPicker) pickAll(host string, roles []string, want config.Ports) (config.Ports, error) {
	has := func(r string) bool {
		for _, x := range roles {
			if x == r {
				return true
			}
		}
		return false
	}
	agent := has("database") || has("store") || has("repository")
	got := want
	for _, s := range []struct {
		on   bool
		what string
		port *int
	}{
		{has("database"), host + "'s PostgreSQL", &got.PostgreSQL},
		{has("proxy"), "the proxy", &got.SQL},
		{has("proxy"), "the proxy for reading", &got.ReadOnly},
		{has("store"), host + "'s store", &got.StoreCli},
		{has("store"), host + "'s store (peers)", &got.StorePeer},
		{true, host + map[bool]string{true: "'s agent", false: "'s proxy (peers)"}[agent], &got.Peer},
		{agent, host + "'s agent (HTTP)", &got.HTTP},
		{has("proxy"), "the proxy (HTTP)", &got.ProxyHTTP},
		{has("repository"), host + "'s repository", &got.Backup},
	} {
		if !s.on {
			continue
		}
		port, err := p.pick(s.what, *s.port)
		if err != nil {
			return got, err
		}
		*s.port = port
	}
	return got, nil
}
