package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	"manada/internal/cluster"
	"manada/internal/postgres"
	"manada/internal/store"
)

// membersLoop keeps this host registered, learns who else is there, and keeps
// etcd's leadership off the primary's host, so that one dead host is not two
// elections.
func (a *Agent) membersLoop(ctx context.Context) {
	a.hub.SetPeers(maps.Clone(a.cfg.Peers))
	registered, told := false, false
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if !registered {
			err := a.register(ctx)
			registered = err == nil
			if errors.Is(err, store.ErrRemoved) && !told {
				told = true
				a.log.Error("this host was removed from the herd: remove its data_dir and join anew", "error", err.Error())
			}
		}
		if !a.learnPeers(ctx) {
			registered = false
		}
		a.watchStore(ctx)
		a.limits()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *Agent) register(ctx context.Context) error {
	nodes, err := a.store.Nodes(ctx)
	if err != nil {
		return err
	}
	n := store.Node{
		Name: a.cfg.Node, Kind: a.cfg.Kind, Location: a.cfg.Location,
		Addrs: a.cfg.Addrs, Version: a.cfg.Version, Joined: time.Now().UTC(),
	}
	for _, old := range nodes {
		if old.Name == a.cfg.Node {
			n.ID, n.Joined = old.ID, old.Joined
		}
	}
	if a.db != nil {
		n.ID, n.Failover, n.Priority = nodeID(a.cfg.ID, n, nodes), a.cfg.Failover, &a.cfg.Priority
	}
	return a.store.PutNode(ctx, n)
}

// nodeID is the number that a node with a database bears: what its file says,
// else what it has, else the first free one. Of two that took the same number
// at once the later one, by its time of joining, takes another.
func nodeID(wanted int, self store.Node, nodes []store.Node) int {
	taken := map[int]bool{}
	for _, n := range nodes {
		if n.Name != self.Name && n.ID != 0 && (n.ID != self.ID || olderNode(n, self)) {
			taken[n.ID] = true
		}
	}
	if wanted != 0 {
		return wanted
	}
	if self.ID != 0 && !taken[self.ID] {
		return self.ID
	}
	id := 1
	for taken[id] {
		id++
	}
	return id
}

func olderNode(a, b store.Node) bool {
	return a.Joined.Before(b.Joined) || a.Joined.Equal(b.Joined) && a.Name < b.Name
}

// learnPeers says whether this host is still registered as it should be, as far
// as is known.
func (a *Agent) learnPeers(ctx context.Context) (member bool) {
	nodes, err := a.store.Nodes(ctx)
	if err != nil {
		return true
	}
	peers := map[string]string{}
	for _, n := range nodes {
		if n.Name == a.cfg.Node {
			member = a.db == nil || n.ID == nodeID(a.cfg.ID, n, nodes)
		}
		if n.Addrs.Peer != "" && n.Kind != "proxy" {
			peers[n.Name] = n.Addrs.Peer
		}
	}
	a.mu.Lock()
	a.nodes = nodes
	a.mu.Unlock()
	a.hub.SetPeers(peers)
	a.tellGuardian(ctx, peers)
	return member
}

func (a *Agent) watchStore(ctx context.Context) {
	st, err := a.store.Status(ctx)
	if err != nil && st.Voters == 0 {
		a.mu.Lock()
		if a.storeUnknown.IsZero() {
			a.storeUnknown = time.Now()
		}
		a.mu.Unlock()
		return
	}
	a.mu.Lock()
	a.storeUp, a.storeAskedAt, a.storeUnknown = st, time.Now(), time.Time{}
	lead := a.mem.leads != 0
	a.mu.Unlock()
	if move := a.parts.MoveStoreLeader; lead && st.Leader == a.cfg.Node && st.Up > 1 && move != nil {
		if err := move(ctx, a.cfg.Node); err != nil && ctx.Err() == nil {
			a.log.Debug("cannot move the store's leadership", "error", err.Error())
		}
	}
}

// endpointOf is where a node's PostgreSQL listens, by its own word.
func (a *Agent) endpointOf(ctx context.Context, node string) (postgres.Endpoint, error) {
	h, ok := a.hub.Heard()[node]
	if !ok || h.Beat.Addrs.SQL == "" {
		return postgres.Endpoint{}, fmt.Errorf("the address of %s is not known yet", node)
	}
	host, p, err := net.SplitHostPort(h.Beat.Addrs.SQL)
	if err != nil {
		return postgres.Endpoint{}, fmt.Errorf("address of %s: %w", node, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return postgres.Endpoint{}, fmt.Errorf("address of %s: %w", node, err)
	}
	addrs, err := a.addrs.lookUp(ctx, host)
	if err != nil {
		return postgres.Endpoint{}, fmt.Errorf("address of %s: %w", node, err)
	}
	return postgres.Endpoint{Node: node, Addrs: addrs, Port: port}, nil
}

func (a *Agent) upstream(ctx context.Context, node, name string, epoch uint64) (postgres.Upstream, error) {
	at, err := a.endpointOf(ctx, node)
	return postgres.Upstream{Endpoint: at, Name: name, Epoch: epoch, Slot: cluster.SlotName(a.cfg.Node)}, err
}

// readdress: the leader's address may change while it leads; the walreceiver
// is told an address and looks up nothing.
func (a *Agent) readdress(ctx context.Context) {
	a.mu.Lock()
	t, name, ok := a.rec.snap.Term, a.seen.upstream, a.busy() == ""
	a.mu.Unlock()
	if !ok || t == nil || t.Leader == a.cfg.Node || name == "" {
		return
	}
	if name != cluster.CertifiedName(a.cfg.Node, t.Epoch) && name != cluster.UncertifiedName(a.cfg.Node, t.Epoch) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	up, err := a.upstream(ctx, t.Leader, name, t.Epoch)
	if err == nil {
		err = a.db.Readdress(ctx, up)
	}
	if err != nil && !errors.Is(err, postgres.ErrBarred) {
		a.log.Debug("cannot keep the upstream's address", "error", err.Error())
	}
}

func (a *Agent) source(ctx context.Context, node string) (postgres.Source, error) {
	at, err := a.endpointOf(ctx, node)
	if err != nil {
		return postgres.Source{}, err
	}
	t := a.Term()
	if t == nil {
		return postgres.Source{}, errors.New("no term is known")
	}
	return postgres.Source{Endpoint: at, Timeline: t.Current().Timeline, Epoch: t.Epoch}, nil
}

func streamsFor(t *cluster.Term, s cluster.Sender) bool {
	node, epoch, ok := cluster.ParseCertifiedName(s.Name)
	if !ok || epoch != t.Epoch || s.Stranger != "" {
		return false
	}
	_, in := t.SyncNamed(node)
	return in
}
