package rules

import (
	"fmt"
	"slices"

	"manada/internal/proxy/wire"
)

// await is somebody who wants to know when something has come about.
type await struct {
	id       uint64
	database string // empty: all
	what     What
}

// What can be waited for.
type What uint8

const (
	Quiet What = iota // no server is left: what PAUSE waits for
	Fresh             // no server is left that is handed to nobody: WAIT_CLOSE
)

func errState(format string, a ...any) *wire.Error {
	return &wire.Error{Severity: "ERROR", Code: "55000", Message: fmt.Sprintf(format, a...)}
}

// known finds the databases that a command of the console is for; empty: all. One
// that nobody has come to yet is made, so that it can be held before they do.
func (b *Book) known(name string) []*Database {
	if name != "" {
		return []*Database{b.database(name)}
	}
	var all []*Database
	for _, n := range sortedKeys(b.databases) {
		all = append(all, b.databases[n])
	}
	return all
}

// Pause hands out no server of a database any more, or of any when the name is
// empty, and closes them as they are given back. Clients wait.
func (b *Book) Pause(name string, out []Decision) ([]Decision, *wire.Error) {
	if name == "" {
		if b.pausedAll {
			return out, errState("already paused")
		}
		b.pausedAll = true
	} else {
		d := b.database(name)
		if d.paused {
			return out, errState("database %s is already paused", name)
		}
		d.paused = true
	}
	return b.settle(b.sweep(name, func(s *Server) bool { return s.state == idle }, out)), nil
}

// Resume ends Pause and Kill.
func (b *Book) Resume(now Moment, name string, out []Decision) ([]Decision, *wire.Error) {
	if name == "" {
		if !b.pausedAll && !slices.ContainsFunc(b.known(""), func(d *Database) bool { return d.paused }) {
			return out, errState("nothing is paused")
		}
		b.pausedAll = false
	} else if d := b.databases[name]; d == nil || !d.paused {
		return out, errState("database %s is not paused", name)
	}
	for _, d := range b.known(name) {
		d.paused = false
		for _, a := range d.accounts {
			for _, p := range a.pools {
				out = b.serve(now, p, out)
			}
		}
		b.forgetDatabase(d)
	}
	return out, nil
}

// Disable keeps new clients of a database away; Enable ends it.
func (b *Book) Disable(name string) { b.database(name).disabled = true }

// Enable lets clients of a database in.
func (b *Book) Enable(name string) {
	d := b.database(name)
	d.disabled = false
	b.forgetDatabase(d)
}

// Reconnect hands out no server that is open now: they are closed as they are given
// back, unused ones at once.
func (b *Book) Reconnect(now Moment, name string, out []Decision) []Decision {
	for _, d := range b.known(name) {
		for _, a := range d.accounts {
			out = b.stale(now, a, out)
		}
		b.forgetDatabase(d)
	}
	return b.settle(out)
}

// Kill pauses a database, ends all its servers and tells those who wait. The driver
// ends its other clients.
func (b *Book) Kill(name string, out []Decision) []Decision {
	if name == "" {
		b.pausedAll = true
	}
	for _, d := range b.known(name) {
		d.paused = d.paused || name != ""
		for _, a := range d.accounts {
			for _, p := range a.pools {
				out = b.denyAll(p, Decision{Err: errKilled()}, out)
			}
		}
	}
	return b.settle(b.sweep(name, func(*Server) bool { return true }, out))
}

// sweep closes the servers of a database, or of all, that are like that.
func (b *Book) sweep(name string, like func(*Server) bool, out []Decision) []Decision {
	for _, d := range b.known(name) {
		for _, a := range d.accounts {
			for _, p := range a.pools {
				for _, s := range p.servers {
					if like(s) {
						out = b.close(s, nil, out)
					}
				}
			}
		}
	}
	return out
}

// Await gives a number with which Settled comes once a database, or all when the
// name is empty, is as wanted: among these decisions if it is already.
func (b *Book) Await(name string, what What, out []Decision) (uint64, []Decision) {
	b.lastID++
	b.awaits = append(b.awaits, await{b.lastID, name, what})
	return b.lastID, b.settle(out)
}

// Forsake ends a wait.
func (b *Book) Forsake(id uint64) {
	b.awaits = slices.DeleteFunc(b.awaits, func(w await) bool { return w.id == id })
}

// settle tells those whose wait is over.
func (b *Book) settle(out []Decision) []Decision {
	if len(b.awaits) == 0 {
		return out
	}
	kept := b.awaits[:0]
	for _, w := range b.awaits {
		if b.unsettled(w) {
			kept = append(kept, w)
			continue
		}
		out = append(out, Decision{Kind: Settled, ID: w.id})
	}
	b.awaits = kept
	return out
}

func (b *Book) unsettled(w await) bool {
	for _, a := range b.accounts {
		if w.database != "" && w.database != a.Database.Name {
			continue
		}
		if w.what == Quiet && !b.pausedAll && !a.Database.paused {
			continue // resumed: it cannot come about any more
		}
		for _, p := range a.pools {
			for _, s := range p.servers {
				if w.what == Quiet || s.state == closing || b.unfit(s.since, s) != "" {
					return true
				}
			}
		}
	}
	return false
}
