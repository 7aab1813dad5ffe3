package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"manada/internal/proxy/wire"
)

// sim is a driver with clients, nodes and a clock of its own. It knows what it was
// told to do and what it did, and nothing of the book's inside.
type sim struct {
	t       failer
	r       *rand.Rand
	b       *Book
	now     Moment
	size    int
	nodes   []*simNode
	leader  *simNode
	held    *simNode // by a switchover
	clients []*simClient
	servers map[*Server]*simServer
	waiting []*simClient // in the order in which they asked
	todo    []Decision
	paused  map[string]bool
	changes map[string]uint64 // by account: of its settings
	handed  int
	denied  map[string]int
}

type failer interface {
	Fatalf(string, ...any)
	Helper()
}

type simNode struct {
	node  *Node
	limit int
	epoch uint64
	count int
	down  bool
}

type simClient struct {
	own      *Own // it has a connection of its own
	claim    Claim
	name     string
	db       string
	account  *Account
	node     *simNode // what it wants; nil: the primary
	waits    bool
	since    Moment
	server   *Server
	attached bool
}

type simServer struct {
	client  *simClient
	node    *simNode
	account string
	epoch   uint64
	changes uint64
	open    bool
	closing bool
}

func newSim(t failer, seed uint64) *sim {
	s := &sim{t: t, r: rand.New(rand.NewPCG(seed, 0)), servers: map[*Server]*simServer{}, paused: map[string]bool{}, changes: map[string]uint64{}, denied: map[string]int{}}
	s.size = 1 + s.r.IntN(4)
	cfg := Config{Default: Settings{Mode: Transaction, Size: s.size, QueueTimeout: 20 * time.Second, Lifetime: time.Minute, IdleTimeout: 10 * time.Second}, MaxClients: 30}
	s.b = New(cfg, 3)
	for i := range 2 {
		n := &simNode{node: s.b.Node(fmt.Sprintf("n%d", i)), limit: 1 + s.r.IntN(6)}
		s.nodes = append(s.nodes, n)
		s.did(s.b.SetNode(s.now, n.node, n.limit, 0, nil))
	}
	for i := range 40 {
		s.clients = append(s.clients, &simClient{db: fmt.Sprintf("d%d", i%2), name: fmt.Sprintf("d%d/u%d", i%2, i%5)})
	}
	return s
}

// did takes decisions and checks what can be told at once.
func (s *sim) did(out []Decision) {
	for _, d := range out {
		switch d.Kind {
		case Open:
			s.opens(d.Server)
			s.todo = append(s.todo, d)
		case Close:
			v := s.servers[d.Server]
			if v == nil || v.closing {
				s.t.Fatalf("a server is closed that is not there, or twice")
			}
			if v.client != nil {
				v.client.server, v.client = nil, nil
			}
			v.closing = true
			s.todo = append(s.todo, d)
		case Hand:
			s.hands(d)
		case Deny:
			c := s.of(d.Claim)
			if d.Err == nil || d.Err.Code == "" || d.Err.Message == "" {
				s.t.Fatalf("denied without a reason")
			}
			s.denied[d.Err.Code]++
			s.leave(c)
		}
	}
}

func (s *sim) opens(x *Server) {
	n := s.nodeOf(x.Pool.Node)
	n.count++
	if n.count > n.limit {
		s.t.Fatalf("%d connections to %s, %d are allowed", n.count, n.node.Name, n.limit)
	}
	if n == s.held {
		s.t.Fatalf("a connection is opened to a node that is being switched over")
	}
	a := x.Pool.Account
	name := a.Database.Name + "/" + a.User
	s.servers[x] = &simServer{node: n, account: name, epoch: n.epoch, changes: s.changes[name]}
	if k := s.poolCount(x.Pool); k > s.size {
		s.t.Fatalf("%d connections of %s, %d are allowed", k, name, s.size)
	}
}

func (s *sim) poolCount(p *Pool) int {
	k := 0
	for x := range s.servers {
		if x.Pool == p {
			k++
		}
	}
	return k
}

func (s *sim) hands(d Decision) {
	c, v := s.of(d.Claim), s.servers[d.Server]
	n := s.target(c)
	switch {
	case v == nil || !v.open || v.closing:
		s.t.Fatalf("a server that is not open is handed out")
	case v.client != nil:
		s.t.Fatalf("two clients on one server")
	case v.node != n || v.account != c.name:
		s.t.Fatalf("%s gets a server of %s at %s", c.name, v.account, v.node.node.Name)
	case s.paused[c.db] || s.paused[""]:
		s.t.Fatalf("a server of a paused database is handed out")
	case n == s.held:
		s.t.Fatalf("a server of a node that is being switched over is handed out")
	case v.epoch != n.epoch:
		s.t.Fatalf("a server of epoch %d is handed out in %d", v.epoch, n.epoch)
	case v.changes != s.changes[c.name]:
		s.t.Fatalf("a server from before a change is handed out")
	case !c.waits:
		s.t.Fatalf("%s gets a server and does not wait", c.name)
	}
	for _, o := range s.waiting {
		if o == c {
			break
		}
		if o.name == c.name && s.target(o) == n {
			s.t.Fatalf("%s is overtaken in its pool", c.name)
		}
	}
	s.handed++
	s.leave(c)
	c.server, v.client = d.Server, c
}

func (s *sim) leave(c *simClient) {
	c.waits = false
	s.waiting = slices.DeleteFunc(s.waiting, func(o *simClient) bool { return o == c })
}

func (s *sim) of(c *Claim) *simClient { return c.Data.(*simClient) }

func (s *sim) target(c *simClient) *simNode {
	if c.node == nil {
		return s.leader
	}
	return c.node
}

func (s *sim) nodeOf(n *Node) *simNode {
	i := slices.IndexFunc(s.nodes, func(x *simNode) bool { return x.node == n })
	return s.nodes[i]
}

// work carries out a decision.
func (s *sim) work(i int) {
	d := s.todo[i]
	s.todo = slices.Delete(s.todo, i, i+1)
	v := s.servers[d.Server]
	if v == nil {
		return
	}
	n := v.node
	gone := func() { n.count--; delete(s.servers, d.Server) }
	switch {
	case d.Kind == Close:
		gone()
		s.did(s.b.Closed(s.now, d.Server, nil))
	case v.closing:
		// its Close comes
	case n.down:
		gone()
		s.did(s.b.Failed(s.now, d.Server, wire.Fatal("57P03", "the database system is starting up", ""), nil))
	default:
		v.open = true
		s.did(s.b.Opened(s.now, d.Server, s.r.IntN(3), nil))
	}
}

func (s *sim) step() {
	c := s.clients[s.r.IntN(len(s.clients))]
	c.claim.Data = c
	switch k := s.r.IntN(100); {
	case k < 35:
		s.act(c)
	case k < 75 && len(s.todo) > 0:
		s.work(s.r.IntN(len(s.todo)))
	case k < 85:
		s.now += time.Duration(s.r.IntN(300)) * time.Millisecond
	case k < 90:
		s.did(s.b.Tick(s.now, nil))
	default:
		s.mishap(c)
	}
}

// act is what a client does next.
func (s *sim) act(c *simClient) {
	switch {
	case c.own != nil:
		if s.r.IntN(5) == 0 {
			s.b.Leave(c.own)
			c.own = nil
		}
	case !c.attached && s.r.IntN(5) == 0:
		s.enter(c)
	case !c.attached:
		user := c.name[len(c.db)+1:]
		a, err, out := s.b.Attach(s.now, c.db, user, rights(fmt.Sprint(s.changes[c.name])), nil)
		s.did(out)
		if err != nil {
			s.denied[err.Code]++
			return
		}
		c.account, c.attached = a, true
		s.countedClients()
	case c.server != nil:
		s.give(c)
	case c.waits:
		if s.r.IntN(20) == 0 {
			s.leave(c)
			s.did(s.b.Withdraw(s.now, &c.claim, nil))
		}
	case s.r.IntN(20) == 0:
		s.b.Detach(c.account)
		c.attached = false
	default:
		c.node = nil
		if s.r.IntN(4) == 0 {
			c.node = s.nodes[s.r.IntN(2)]
		}
		c.waits, c.since = true, s.now
		s.waiting = append(s.waiting, c)
		var n *Node
		if c.node != nil {
			n = c.node.node
		} else if s.r.IntN(2) == 0 {
			if x := s.b.AtHand(s.now, &c.claim, c.account, s.r.IntN(3)); x != nil {
				s.did([]Decision{{Kind: Hand, Server: x, Claim: &c.claim}})
				return
			}
		}
		s.did(s.b.Want(s.now, &c.claim, c.account, n, s.r.IntN(3), nil))
	}
}

// enter lets a client in that has a connection of its own.
func (s *sim) enter(c *simClient) {
	user, err := c.name[len(c.db)+1:], (*wire.Error)(nil)
	if s.r.IntN(2) == 0 {
		c.own, err = s.b.EnterPhysical(user, rights(""))
	} else {
		var out []Decision
		c.own, err, out = s.b.Enter(s.now, c.db, user, rights(fmt.Sprint(s.changes[c.name])), nil)
		s.did(out)
	}
	if err != nil {
		s.denied[err.Code]++
		return
	}
	s.countedClients()
}

func (s *sim) countedClients() {
	n := 0
	for _, c := range s.clients {
		if c.attached || c.own != nil {
			n++
		}
	}
	if n > 30 || n != s.b.clients {
		s.t.Fatalf("%d clients, 30 are allowed; the book counts %d", n, s.b.clients)
	}
}

func (s *sim) give(c *simClient) {
	x := c.server
	s.servers[x].client, c.server = nil, nil
	s.did(s.b.Gave(s.now, x, s.r.IntN(10) > 0, nil))
}

// mishap is what operators, PostgreSQL and the network do.
func (s *sim) mishap(c *simClient) {
	n := s.nodes[s.r.IntN(2)]
	switch s.r.IntN(9) {
	case 0:
		s.changes[c.name]++
		if c.attached {
			s.did(s.b.Changed(s.now, c.account, fmt.Sprint(s.changes[c.name]), nil))
		} else if a := s.b.accounts[key{c.db, c.name[len(c.db)+1:]}]; a != nil {
			s.did(s.b.Changed(s.now, a, fmt.Sprint(s.changes[c.name]), nil))
		}
	case 1:
		n.epoch++
		s.did(s.b.SetNode(s.now, n.node, n.limit, n.epoch, nil))
	case 2:
		s.lead(s.nodes[s.r.IntN(2)])
	case 3:
		s.lead(nil)
	case 4:
		n.down = !n.down
	case 5:
		name := []string{"", "d0", "d1"}[s.r.IntN(3)]
		if s.paused[name] {
			s.resume(name)
			return
		}
		s.paused[name] = true
		out, _ := s.b.Pause(name, nil)
		s.did(out)
	case 6:
		for x, v := range s.servers { // any one ends by itself
			if v.open && !v.closing {
				s.lose(x, v)
				return
			}
		}
	case 7:
		s.did(s.b.Reconnect(s.now, c.db, nil))
	case 8:
		if s.held != nil {
			n = nil
		}
		s.hold(n)
	}
}

func (s *sim) resume(name string) {
	if name == "" {
		clear(s.paused) // RESUME alone ends them all
	}
	delete(s.paused, name)
	out, err := s.b.Resume(s.now, name, nil)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	s.did(out)
}

func (s *sim) lose(x *Server, v *simServer) {
	if v.client != nil {
		v.client.server = nil
	}
	v.node.count--
	delete(s.servers, x)
	s.did(s.b.Closed(s.now, x, nil))
}

func (s *sim) lead(n *simNode) {
	s.leader = n
	if n == nil {
		s.did(s.b.Lead(s.now, nil, "nobody was elected", nil))
		return
	}
	s.did(s.b.Lead(s.now, n.node, "", nil))
}

// hold begins a switchover of a node, or ends it.
func (s *sim) hold(n *simNode) {
	s.held = n
	if n == nil {
		s.did(s.b.Hold(s.now, nil, nil))
		return
	}
	s.did(s.b.Hold(s.now, n.node, nil))
}

// still carries out all decisions, with time for those that come by time.
func (s *sim) still() {
	for i := 0; i < 100 || len(s.todo) > 0; i++ {
		for len(s.todo) > 0 {
			s.work(0)
		}
		s.now += 50 * time.Millisecond
		if s.b.Next() <= s.now {
			s.did(s.b.Tick(s.now, nil))
		}
	}
}

// idleBeside finds somebody who waits while there is a server for it.
func (s *sim) idleBeside() string {
	for _, c := range s.waiting {
		n := s.target(c)
		if n == nil || n == s.held || s.paused[c.db] || s.paused[""] || n.down {
			continue
		}
		unused, own := 0, 0
		for _, v := range s.servers {
			if v.node == n && v.client == nil {
				unused++
			}
			if v.node == n && v.account == c.name {
				own++
				if v.client == nil && !v.closing {
					return c.name + " waits while a server of its pool is idle"
				}
			}
		}
		if own < s.size && n.count < n.limit {
			return c.name + " waits while one could be opened"
		}
		if own < s.size && unused > 0 {
			return c.name + " waits while a server of another pool is unused"
		}
	}
	return ""
}

// counted: what pools count of their servers is what these are.
func (s *sim) counted() {
	for _, a := range s.b.accounts {
		for _, p := range a.pools {
			of := map[state]int{}
			for _, x := range p.servers {
				of[x.state]++
			}
			if p.opening != of[opening] || p.closing != of[closing] {
				s.t.Fatalf("%d opening and %d closing, counted are %d and %d", of[opening], of[closing], p.opening, p.closing)
			}
		}
	}
}

// run is one random history, which ends with everybody served.
func (s *sim) run(steps int) {
	for i := range steps {
		s.step()
		s.counted()
		if i%97 == 96 {
			s.still()
			if bad := s.idleBeside(); bad != "" {
				s.t.Fatalf("%s", bad)
			}
		}
	}
	for name, on := range s.paused {
		if on {
			s.resume(name)
			break
		}
	}
	for name, on := range s.paused {
		if on {
			s.resume(name)
		}
	}
	for _, n := range s.nodes {
		n.down = false
	}
	s.hold(nil)
	s.lead(s.nodes[0])
	for range 3000 {
		s.still()
		for _, c := range s.clients {
			if c.server != nil {
				s.give(c)
			}
		}
		if len(s.waiting) == 0 {
			return
		}
	}
	s.t.Fatalf("%d clients wait for ever", len(s.waiting))
}
