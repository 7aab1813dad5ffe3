package session

import (
	"container/list"
	"net"
	"net/netip"
	"sync"

	"manada/internal/cluster"
)

// door bounds the clients that have not proved who they are. When it is full the
// newcomer comes in all the same and somebody else has to leave: of the address
// with the most visitors the one that has kept us waiting longest. So whoever
// only opens connections pushes out his own, and a client that goes on with its
// log-in gets through, even from the same address.
type door struct {
	mu    sync.Mutex
	limit int // 0: none
	n     int
	hosts map[netip.Prefix]*list.List // of visitors, the oldest first
}

// visitor is a client inside the door.
type visitor struct {
	door *door
	conn net.Conn
	host netip.Prefix
	at   *list.Element // nil: has left; guarded by door.mu
	ours bool          // it waits for us, not we for it; guarded by door.mu
}

// bound sets how many may be inside; 0: any number.
func (d *door) bound(limit int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = limit
}

// enter lets a client in. It returns nil when there is no room: everybody inside
// waits for us and the newcomer's address has its share.
func (d *door) enter(conn net.Conn) *visitor {
	v := &visitor{door: d, conn: conn, host: cluster.HostOf(conn.RemoteAddr().String())}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limit > 0 && d.n >= d.limit {
		out := d.worst(v.host)
		if out == nil {
			return nil
		}
		d.remove(out)
		out.conn.Close()
	}
	if d.hosts == nil {
		d.hosts = map[netip.Prefix]*list.List{}
	}
	l := d.hosts[v.host]
	if l == nil {
		l = list.New()
		d.hosts[v.host] = l
	}
	v.at = l.PushBack(v)
	d.n++
	return v
}

// worst is who has to leave for one more of a host.
func (d *door) worst(newcomer netip.Prefix) *visitor {
	var most *list.List
	for _, l := range d.hosts {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	if most == nil {
		return nil
	}
	for e := most.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*visitor); !v.ours {
			return v
		}
	}
	if own := d.hosts[newcomer]; own != nil && own.Len()+1 >= most.Len() {
		return nil
	}
	return most.Back().Value.(*visitor)
}

func (d *door) remove(v *visitor) {
	if v.at == nil {
		return
	}
	l := d.hosts[v.host]
	l.Remove(v.at)
	if l.Len() == 0 {
		delete(d.hosts, v.host)
	}
	v.at = nil
	d.n--
}

// leave is for a client that has proved itself, or is gone. It may be called
// more than once.
func (v *visitor) leave() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.door.remove(v)
}

// working says whether it is us that the client waits for.
func (v *visitor) working(yes bool) {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.ours = yes
}
