package route

import (
	"cmp"
	"sync"
	"time"

	"manada/internal/cluster"
)

// Node is a database that sessions can be sent to.
type Node struct {
	Name string
	// Addr is "host:port", or the absolute path of a unix socket.
	Addr string
	// Socket is the unix socket of the node where it is this host's own, else empty.
	Socket string
}

// Nearest is where the proxy connects on its own account.
func (n Node) Nearest() string { return cmp.Or(n.Socket, n.Addr) }

// Is says whether two are the same node, however it is reached.
func (n Node) Is(o Node) bool { return n.Name == o.Name && n.Addr == o.Addr }

// Standby is a node in recovery.
type Standby struct {
	Node
	// LagBytes is how far its replay is behind the primary's WAL, -1 when unknown.
	LagBytes int64
	// LagMS is the age of the last replayed commit while it is behind, else 0; -1 when unknown.
	LagMS int64
	// Streaming says that it follows the primary of the View's epoch.
	Streaming bool
}

// Member is a host with a database, whatever its state, for people.
type Member struct {
	Node
	Up      bool // its PostgreSQL answers
	Primary bool // it leads the epoch, as far as is known
	// LagBytes is as in Standby.
	LagBytes int64
	// State and Sync are what the primary says of the standby's walsender, as in
	// pg_stat_replication; empty when there is none.
	State, Sync string
}

// View is what is known of the herd at a moment. It is never changed once it
// was handed out.
type View struct {
	// Known is false until the term record has been heard of.
	Known bool
	Epoch uint64
	Open  bool
	// Primary has an empty name when no session may be sent to a primary.
	Primary Node
	// CutOff says that others hear the primary and this host does not: it is
	// probably the path from here that is broken.
	CutOff   bool
	Standbys []Standby
	// Why says, for people, why there is no primary; empty when there is one.
	Why string
	// Doubt says why the primary, which sessions are sent to all the same, may let
	// no write through at present: it says so, or was not heard for too long.
	Doubt string
	// At is when the view was derived; zero for one that does not age.
	At time.Time
	// Proxies is how many proxies the herd has as far as is known, this one included.
	Proxies int
	// Drain is the planned switchover that the record announces for the epoch; nil: none.
	Drain *Drain
	// Members are all hosts with a database that were heard of, by name.
	Members []Member
}

// Drain is a planned switchover, as the newest record has it.
type Drain struct {
	cluster.Drain
	Rev    int64  // of the record
	Leader string // whose agent wants to hear how far this proxy is
	Agent  string // where that is, "host:port"; empty: not known
}

// HasPrimary says whether there is a primary to route to.
func (v View) HasPrimary() bool { return v.Known && v.Open && v.Primary.Name != "" }

// Writable says whether the primary is known to let writes through, now: a view
// that nobody renews, as on a host that stood still, knows nothing.
func (v View) Writable() bool {
	return v.HasPrimary() && v.Doubt == "" && (v.At.IsZero() || time.Since(v.At) < time.Second)
}

// Standby finds a standby by its name; nil: there is none.
func (v *View) Standby(node string) *Standby {
	for i := range v.Standbys {
		if v.Standbys[i].Name == node {
			return &v.Standbys[i]
		}
	}
	return nil
}

// SetSocket says that a node is this host's own, and where its unix socket is. It is for
// who makes the view, before it is handed out.
func (v *View) SetSocket(node, path string) {
	if v.Primary.Name == node {
		v.Primary.Socket = path
	}
	if s := v.Standby(node); s != nil {
		s.Socket = path
	}
	for i := range v.Members {
		if v.Members[i].Name == node {
			v.Members[i].Socket = path
		}
	}
}

// Topology is what the proxy follows.
type Topology interface {
	// Current is the newest view. It does not block.
	Current() View
	// Changed returns a channel that is closed at the next change. To miss
	// none, call it before Current.
	Changed() <-chan struct{}
}

// Holder is a Topology whose view is set by its owner. The zero value knows
// nothing yet; it is safe for concurrent use.
type Holder struct {
	mu      sync.Mutex
	view    View
	set     bool
	changed chan struct{}
}

// Set publishes a view. The caller must not change it afterwards.
func (h *Holder) Set(v View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.view, h.set = v, true
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Current implements Topology.
func (h *Holder) Current() View {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.set {
		return View{Why: whyUnknown}
	}
	return h.view
}

// Changed implements Topology.
func (h *Holder) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}
