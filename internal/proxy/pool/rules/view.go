package rules

import "time"

// PoolView is a pool as the console and metrics show it.
type PoolView struct {
	Database, User, Node string
	Mode                 Mode
	Size, Reserve        int
	Clients              int // of the account, at all nodes
	Waiting              int
	Active, Idle, Login  int
	Closing              int
	MaxWait              time.Duration // of the first in the queue
	Paused               bool
}

// Pools shows all pools, by database and user.
func (b *Book) Pools(now Moment) []PoolView {
	var all []PoolView
	for _, a := range b.sortedAccounts() {
		for _, p := range a.pools {
			v := PoolView{Database: a.Database.Name, User: a.User, Node: p.Node.Name, Mode: a.Settings.Mode, Size: p.size(), Reserve: a.Settings.Reserve,
				Clients: a.clients, Waiting: p.waiting.n, Paused: b.held(p)}
			for _, s := range p.servers {
				switch s.state {
				case used:
					v.Active++
				case idle:
					v.Idle++
				case opening:
					v.Login++
				case closing:
					v.Closing++
				}
			}
			if c := p.waiting.first; c != nil {
				v.MaxWait = now - c.since
			}
			all = append(all, v)
		}
	}
	return all
}

func (p *Pool) size() int {
	if n := p.Account.Settings.Size; n > 0 {
		return min(n, p.Node.limit)
	}
	return p.Node.limit
}

// ServerView is a server as the console shows it.
type ServerView struct {
	Server               *Server
	Database, User, Node string
	State                string
	Opened, Since        Moment
	CloseNeeded          bool
	Holder               *Claim // nil: nobody
}

// Servers shows all servers, by database and user.
func (b *Book) Servers(now Moment) []ServerView {
	var all []ServerView
	for _, a := range b.sortedAccounts() {
		for _, p := range a.pools {
			for _, s := range p.servers {
				all = append(all, ServerView{Server: s, Database: a.Database.Name, User: a.User, Node: p.Node.Name, State: states[s.state],
					Opened: s.opened, Since: s.since, CloseNeeded: s.state == closing || b.unfit(now, s) != "", Holder: s.holder})
			}
		}
	}
	return all
}

// Waiting shows who waits, pool by pool.
func (b *Book) Waiting(now Moment, show func(c *Claim, wait time.Duration)) {
	for _, a := range b.sortedAccounts() {
		for _, p := range a.pools {
			for c := p.waiting.first; c != nil; c = c.next {
				show(c, now-c.since)
			}
		}
	}
}

// DatabaseView is a database as the console shows it.
type DatabaseView struct {
	Name             string
	Settings         Settings
	MaxClients       int
	Clients, Servers int
	Paused, Disabled bool
}

// Databases shows those that have clients or servers, or orders of the console.
func (b *Book) Databases() []DatabaseView {
	var all []DatabaseView
	for _, name := range sortedKeys(b.databases) {
		d := b.databases[name]
		v := DatabaseView{Name: d.Name, Settings: b.cfg.For(d.Name, ""), MaxClients: b.cfg.maxClients(d.Name, ""), Clients: d.clients,
			Paused: d.paused || b.pausedAll, Disabled: d.disabled}
		for _, a := range d.accounts {
			for _, p := range a.pools {
				v.Servers += len(p.servers)
			}
		}
		all = append(all, v)
	}
	return all
}

// Paused says whether all databases are.
func (b *Book) Paused() bool { return b.pausedAll }

// UserView is a user as the console shows it.
type UserView struct {
	Name             string
	Settings         Settings
	MaxClients       int
	Clients, Servers int
}

// Users shows those that have clients or servers.
func (b *Book) Users() []UserView {
	servers := map[string]int{}
	for _, a := range b.sortedAccounts() {
		for _, p := range a.pools {
			servers[a.User] += len(p.servers)
		}
	}
	var all []UserView
	for _, name := range sortedKeys(b.users) {
		all = append(all, UserView{Name: name, Settings: b.cfg.For("", name), MaxClients: b.cfg.maxClients("", name),
			Clients: b.users[name].clients, Servers: servers[name]})
	}
	return all
}
