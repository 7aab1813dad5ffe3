package session

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"manada/internal/proxy/console"
	"manada/internal/proxy/loop"
)

// tallies are the statistics by database. The loops count; here is which label is
// whose, and what stood there a while ago.
type tallies struct {
	mu    sync.Mutex
	names []string // by label; the first is for all that are too many
	was   [2]reading
}

// reading is what stood there at a time.
type reading struct {
	at    time.Time
	stats []loop.Stats
}

// maxLabels bounds the databases that have statistics of their own: what shows them
// is bounded by it, too.
const maxLabels = 100

// others is the name under which those are counted that are too many.
const others = "(others)"

// statsPeriod is of what the averages are.
const statsPeriod = time.Minute

// label finds the number of a database, to which somebody has logged in.
func (t *tallies) label(database string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil {
		t.names = []string{others}
	}
	if i := slices.Index(t.names[1:], database); i >= 0 {
		return i + 1
	}
	if len(t.names) > maxLabels {
		return 0
	}
	t.names = append(t.names, database)
	return len(t.names) - 1
}

// Tally is a database's statistics.
type Tally struct {
	Database string
	loop.Stats
}

// Tallies are those of all databases, by name.
func (s *Server) Tallies() []Tally {
	if s.loops == nil {
		return nil // it was not started
	}
	stats := s.loops.Stats()
	s.tallies.mu.Lock()
	defer s.tallies.mu.Unlock()
	var all []Tally
	for i := range stats {
		if i > 0 || stats[i].Logins > 0 {
			all = append(all, Tally{s.tallies.names[i], stats[i]})
		}
	}
	slices.SortFunc(all, func(a, b Tally) int { return strings.Compare(a.Database, b.Database) })
	return all
}

// keepAverages takes a reading every period, until ctx ends.
func (s *Server) keepAverages(ctx context.Context, period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	s.read()
	for {
		select {
		case <-tick.C:
			s.read()
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) read() {
	now := reading{time.Now(), s.loops.Stats()}
	s.tallies.mu.Lock()
	defer s.tallies.mu.Unlock()
	s.tallies.was[0], s.tallies.was[1] = s.tallies.was[1], now
}

// statList is what the console shows of them.
func (s *Server) statList() (out []console.Stats) {
	all := s.Tallies()
	s.tallies.mu.Lock()
	defer s.tallies.mu.Unlock()
	for i := range all {
		v := console.Stats{Database: all[i].Database, Total: counted(&all[i].Stats)}
		before, after := &s.tallies.was[0], &s.tallies.was[1]
		if label := slices.Index(s.tallies.names, v.Database); !before.at.IsZero() && label < len(after.stats) {
			var first loop.Stats // none: it is newer
			if label < len(before.stats) {
				first = before.stats[label]
			}
			v.Average = average(counted(&first), counted(&after.stats[label]), after.at.Sub(before.at))
		}
		out = append(out, v)
	}
	return out
}

// statSum is what it shows of all databases together.
func (s *Server) statSum() (out console.Stats) {
	for _, t := range s.Tallies() {
		out.Total = out.Total.Plus(counted(&t.Stats))
	}
	s.tallies.mu.Lock()
	defer s.tallies.mu.Unlock()
	before, after := &s.tallies.was[0], &s.tallies.was[1]
	if before.at.IsZero() {
		return out
	}
	sum := func(r *reading) (all console.Counts) {
		for i := range r.stats {
			all = all.Plus(counted(&r.stats[i]))
		}
		return all
	}
	out.Average = average(sum(before), sum(after), after.at.Sub(before.at))
	return out
}

// counted is what the console shows of statistics.
func counted(s *loop.Stats) console.Counts {
	return console.Counts{Assignments: s.Assignments, Transactions: s.Transactions, Queries: s.Queries, Received: s.Received, Sent: s.Sent,
		TransactionTime: s.Transaction.Sum.Microseconds(), QueryTime: s.Query.Sum.Microseconds(), Wait: s.Wait.Sum.Microseconds(),
		ClientParses: s.ClientParses, ServerParses: s.ServerParses, Binds: s.Binds, Logins: s.Logins}
}

// average is the growth in a period: per second, and times for each of what took them.
func average(a, b console.Counts, d time.Duration) console.Counts {
	per := func(a, b int64) int64 { return int64(float64(b-a) / d.Seconds()) }
	each := func(a, b, n int64) int64 { return (b - a) / max(n, 1) }
	return console.Counts{
		Assignments: per(a.Assignments, b.Assignments), Transactions: per(a.Transactions, b.Transactions), Queries: per(a.Queries, b.Queries),
		Received: per(a.Received, b.Received), Sent: per(a.Sent, b.Sent),
		TransactionTime: each(a.TransactionTime, b.TransactionTime, b.Transactions-a.Transactions),
		QueryTime:       each(a.QueryTime, b.QueryTime, b.Queries-a.Queries),
		Wait:            each(a.Wait, b.Wait, b.Assignments-a.Assignments),
		ClientParses:    per(a.ClientParses, b.ClientParses), ServerParses: per(a.ServerParses, b.ServerParses),
		Binds: per(a.Binds, b.Binds), Logins: per(a.Logins, b.Logins),
	}
}

// Queue is what a database has of clients and server connections at the moment.
type Queue struct {
	Database            string
	Clients, Waiting    int // those that wait are among the clients
	Active, Idle, Login int // server connections
	MaxWait             time.Duration
}

// Queues are those of all databases that have any, by name. Those that have no
// statistics of their own are put together.
func (s *Server) Queues() []Queue {
	if s.loops == nil {
		return nil // it was not started
	}
	all := map[string]*Queue{}
	for _, p := range s.poolList() {
		name := s.tallies.name(p.Database)
		if all[name] == nil {
			all[name] = &Queue{Database: name}
		}
		q := all[name]
		q.Clients, q.Waiting, q.MaxWait = q.Clients+p.Active+p.Waiting, q.Waiting+p.Waiting, max(q.MaxWait, p.MaxWait)
		q.Active, q.Idle, q.Login = q.Active+p.Servers, q.Idle+p.Idle, q.Login+p.Login
	}
	var out []Queue
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[name])
	}
	return out
}

// name is under which a database is shown.
func (t *tallies) name(database string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.names) > 0 && slices.Contains(t.names[1:], database) {
		return database
	}
	return others
}

// Pinned is how many clients keep their connection between transactions.
func (s *Server) Pinned() int { return len(s.pinList()) }
