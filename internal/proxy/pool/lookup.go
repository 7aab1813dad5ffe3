package pool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"manada/internal/proxy/loop"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/wire"
)

// Verifiers looks up what a log-in is checked against: the password verifiers of
// roles through the function manada.user_lookup(name), as a role of its own, over
// one kept connection per node, and with the same query what PostgreSQL would ask
// its catalogs.
//
// Logins of the same role to the same database that wait at the same time share one query, but only
// one that was sent after they asked: with TTL 0 a changed password counts at
// once. Safe for concurrent use.
type Verifiers struct {
	Dialer    *Dialer
	User      string          // manada_proxy
	Passwords func() []string // those that may be right; nil when TLS authenticates the proxy
	Database  string
	TTL       time.Duration // for how long an answer is used again
	Timeout   time.Duration // of one query
	// Host runs what talks to a node, see loop.Group; nil: where it is called.
	Host func(net.Conn, func(*loop.Guest)) error

	mu     sync.Mutex
	cache  map[question]cached
	nodes  map[string]*lookups
	closed bool
	work   sync.WaitGroup
}

// question is what is asked: may this role log in to this database, and with what?
type question struct{ role, database string }

// Secret is what is stored for a role, and what it may do in a database.
type Secret struct {
	Exists   bool
	Password string // empty: none stored
	// Iterations is how many passwords are hashed with now; 0: PostgreSQL's own.
	Iterations int
	// Muted says that its sessions do not get warnings unless they ask for them.
	Muted bool
	// Temporary says that its sessions begin with a search_path that names pg_temp, so that
	// what they create is temporary.
	Temporary bool
	// Rights are those of the role in the database, when the role exists.
	Rights rules.Rights
	// Admin and Monitor say whether it is a member of manada_admin, and of pg_monitor.
	// Superusers are.
	Admin, Monitor bool
}

type cached struct {
	secret Secret
	at     time.Time
}

// lookups is one node's queue. All but backend and asked is guarded by Verifiers.mu.
type lookups struct {
	addr    string
	waiting []*lookup // nobody has been asked yet, the first first
	asking  *lookup
	running bool   // there is somebody who asks
	wake    func() // has him look at the queue; nil: he does

	backend *Backend
	asked   bool // it has lookupSQL prepared: planning it takes longer than executing it
}

// lookup is a question and those who wait for its answer.
type lookup struct {
	question
	tell []func(Secret, error)
}

// ErrAbandoned means that the node is not the one to ask any more.
var ErrAbandoned = errors.New("another node is to be asked")

// Lookup asks the node at addr for what is stored for a role that wants to log in to
// a database. The query is not tied to ctx, which only bounds the wait: others may
// wait for the same answer.
func (v *Verifiers) Lookup(ctx context.Context, addr, role, database string) (Secret, error) {
	type answer struct {
		secret Secret
		err    error
	}
	answers := make(chan answer, 1)
	v.Ask(addr, role, database, func(s Secret, err error) { answers <- answer{s, err} })
	select {
	case a := <-answers:
		return a.secret, a.err
	case <-ctx.Done():
		return Secret{}, fmt.Errorf("look up role on %s: %w", addr, context.Cause(ctx))
	}
}

// Ask is Lookup that does not wait: tell is called once with the answer, from any
// goroutine or before Ask returns, and must not block.
func (v *Verifiers) Ask(addr, role, database string, tell func(Secret, error)) {
	q := question{role, database}
	v.mu.Lock()
	if c, ok := v.cache[q]; ok && time.Since(c.at) < v.TTL {
		v.mu.Unlock()
		tell(c.secret, nil)
		return
	}
	if v.closed {
		v.mu.Unlock()
		tell(Secret{}, context.Canceled)
		return
	}
	wake := v.enqueue(addr, q, tell)
	v.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// enqueue returns what is to be called without the lock.
func (v *Verifiers) enqueue(addr string, q question, tell func(Secret, error)) (wake func()) {
	if v.nodes == nil {
		v.nodes, v.cache = map[string]*lookups{}, map[question]cached{}
	}
	n := v.nodes[addr]
	if n == nil {
		n = &lookups{addr: addr}
		v.nodes[addr] = n
	}
	for _, l := range n.waiting {
		if l.question == q {
			l.tell = append(l.tell, tell)
			return nil
		}
	}
	n.waiting = append(n.waiting, &lookup{q, []func(Secret, error){tell}})
	if !n.running {
		n.running = true
		v.work.Go(func() { v.run(n) })
	}
	wake, n.wake = n.wake, nil
	return wake
}

// run asks a node until nobody wants to know anything and there is no connection.
func (v *Verifiers) run(n *lookups) {
	for {
		l := v.next(n, nil)
		if l == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), v.Timeout) // detached: others may wait for the same answer
		b, err := v.Dialer.openOwn(ctx, n.addr, own(v.User, v.Passwords, v.Database))
		cancel()
		if err != nil {
			v.answer(n, l, Secret{}, err)
			continue
		}
		n.backend, n.asked = b, false
		host := v.Host
		if host == nil {
			host = func(conn net.Conn, code func(*loop.Guest)) error { code(loop.NewGuest(conn)); return nil }
		}
		err = host(b.Conn, func(g *loop.Guest) {
			b.Conn = g
			v.serve(n, g, l)
		})
		if err != nil {
			v.answer(n, l, Secret{}, err)
		}
	}
}

// serve asks over a connection until that ends.
func (v *Verifiers) serve(n *lookups, g *loop.Guest, l *lookup) {
	defer g.Close()
	for fresh := true; l != nil; fresh = false {
		s, err := n.query(l.question, v.Timeout)
		if err != nil && !fresh { // it may have ended long ago: a new one is asked
			v.mu.Lock()
			if n.asking = nil; len(l.tell) > 0 {
				n.waiting = append([]*lookup{l}, n.waiting...)
			}
			v.mu.Unlock()
			return
		}
		if err == nil && v.TTL > 0 {
			v.mu.Lock()
			v.remember(l.question, s)
			v.mu.Unlock()
		}
		v.answer(n, l, s, err)
		if err != nil {
			return
		}
		l = v.next(n, g)
	}
}

// next is what is to be asked next. With a connection it waits for that, and returns
// nil when all is over; without, when there is nothing.
func (v *Verifiers) next(n *lookups, g *loop.Guest) *lookup {
	for {
		v.mu.Lock()
		switch {
		case len(n.waiting) > 0:
			l := n.waiting[0]
			n.waiting, n.asking = n.waiting[1:], l // from now on a newcomer needs a younger answer
			v.mu.Unlock()
			return l
		case v.closed && g != nil:
			v.mu.Unlock()
			return nil
		case g == nil:
			n.running = false
			v.mu.Unlock()
			return nil
		}
		g.Until(func(done func()) {
			n.wake = done
			v.mu.Unlock()
		})
	}
}

// answer tells those who wait, unless they were told that they wait in vain.
func (v *Verifiers) answer(n *lookups, l *lookup, s Secret, err error) {
	if err != nil {
		err = fmt.Errorf("look up role: %w", err)
	}
	v.mu.Lock()
	tell := l.tell
	l.tell, n.asking = nil, nil
	v.mu.Unlock()
	for _, t := range tell {
		t(s, err)
	}
}

// Abandon tells those who wait for an answer of a node that there is none.
func (v *Verifiers) Abandon(addr string) {
	v.mu.Lock()
	var tell []func(Secret, error)
	if n := v.nodes[addr]; n != nil {
		for _, l := range append(n.waiting, n.asking) {
			if l != nil {
				tell = append(tell, l.tell...)
				l.tell = nil
			}
		}
		n.waiting = nil
	}
	v.mu.Unlock()
	for _, t := range tell {
		t(Secret{}, ErrAbandoned)
	}
}

// maxCached bounds the cache: names are the clients' to invent.
const maxCached = 10000

func (v *Verifiers) remember(q question, s Secret) {
	if len(v.cache) >= maxCached {
		clear(v.cache)
	}
	v.cache[q] = cached{s, time.Now()}
}

// Forget drops a cached answer, after a failed log-in.
func (v *Verifiers) Forget(role, database string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.cache, question{role, database})
}

// Close ends the kept connections, waiting for queries under way.
func (v *Verifiers) Close() {
	v.mu.Lock()
	v.closed = true
	var wake []func()
	for _, n := range v.nodes {
		if n.wake != nil {
			wake = append(wake, n.wake)
			n.wake = nil
		}
	}
	v.mu.Unlock()
	for _, w := range wake {
		w()
	}
	v.work.Wait()
}

// lookupSQL also asks whether the role's sessions would hide warnings from the
// proxy by default, in any database (finding H9), what PostgreSQL checks at a log-in
// beside the password, a value that is another one once the role or the database was
// made anew or their settings changed, who may use the proxy's console, and whether what
// its sessions create is temporary by default.
const lookupSQL = `select u.rolname, u.rolpassword,
	pg_catalog.current_setting('client_min_messages') in ('error', 'fatal', 'panic') or exists (
		select from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
		where s.setrole in (0, r.oid)
		and pg_catalog.lower(c) in ('client_min_messages=error', 'client_min_messages=fatal', 'client_min_messages=panic'))
		, pg_catalog.current_setting('scram_iterations', true)
	, r.rolcanlogin, r.rolsuper, r.rolconnlimit
	, d.oid is not null, d.datallowconn, d.datconnlimit, pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT')
	, pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', r.oid, d.oid, (
		select pg_catalog.string_agg(s.setdatabase::text || ' ' || s.setrole || ' ' || s.setconfig::text, ' ' order by s.setdatabase, s.setrole)
		from pg_catalog.pg_db_role_setting s where s.setrole in (0, r.oid) and s.setdatabase in (0, d.oid))), 0)
	, r.rolsuper or exists (select from pg_catalog.pg_roles m where m.rolname = 'manada_admin' and pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER'))
	, pg_catalog.pg_has_role(r.oid, 'pg_monitor', 'MEMBER')
	, exists (
		select from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
		where s.setrole in (0, r.oid) and s.setdatabase in (0, d.oid) and c ~* '^search_path=.*pg_temp')
	from (select) one left join manada.user_lookup($1) u on true
	left join pg_catalog.pg_roles r on r.rolname = u.rolname left join pg_catalog.pg_database d on d.datname = $2`

// lookupName is that of the statement which is prepared.
const lookupName = "lookup"

// lookupColumns is how many columns lookupSQL has.
const lookupColumns = 15

func (n *lookups) query(q question, timeout time.Duration) (s Secret, err error) {
	if err := n.backend.Conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return s, err
	}
	var messages []byte
	if !n.asked {
		messages = appendParse(messages, lookupName, lookupSQL)
	}
	n.asked = true // if it is not, the connection is given up
	err = n.backend.ask(appendAsk(messages, lookupName, []string{q.role, q.database}), func(cols []string) error {
		n, _ := strconv.Atoi(cols[3]) // before version 16 there is no such setting
		s = Secret{Exists: cols[0] != "", Password: cols[1], Muted: cols[2] == "t", Iterations: n, Rights: rightsOf(cols[4:12]),
			Admin: cols[12] == "t", Monitor: cols[13] == "t", Temporary: cols[14] == "t"}
		return nil
	}, lookupColumns)
	return s, err
}

// rightsOf reads the columns of lookupSQL from rolcanlogin on.
func rightsOf(cols []string) rules.Rights {
	limit := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			return -1 // there is no such role or database
		}
		return n
	}
	return rules.Rights{Login: cols[0] == "t", Superuser: cols[1] == "t", RoleLimit: limit(cols[2]),
		Exists: cols[3] == "t", Allowed: cols[4] == "t", DatabaseLimit: limit(cols[5]), Connect: cols[6] == "t", Stamp: cols[7]}
}

// ask sends messages that end in a Sync and reads the answer, rows of n columns
// in text format, up to the next ReadyForQuery.
func (b *Backend) ask(messages []byte, row func(cols []string) error, n int) error {
	if _, err := b.Conn.Write(messages); err != nil {
		return err
	}
	var failed error
	r := wire.NewReader(b.Conn)
	for {
		typ, body, err := r.Next(maxAsked)
		if err != nil {
			return err
		}
		switch typ {
		case wire.TypeError:
			failed = wire.ParseError(body)
		case wire.TypeDataRow:
			cols, err := columns(body, n)
			if err == nil {
				err = row(cols)
			}
			if err != nil {
				return err
			}
		case wire.TypeReady:
			return failed
		}
	}
}

// columns takes a row of n columns apart; NULL is empty.
func columns(row []byte, n int) ([]string, error) {
	if len(row) < 2 || int(binary.BigEndian.Uint16(row)) != n {
		return nil, errRow
	}
	row = row[2:]
	text := string(row) // all of them are pieces of it
	cols := make([]string, n)
	for i := range cols {
		if len(row) < 4 {
			return nil, errRow
		}
		n := int32(binary.BigEndian.Uint32(row))
		row, text = row[4:], text[4:]
		if n < 0 {
			continue
		}
		if int(n) > len(row) {
			return nil, errRow
		}
		cols[i], row, text = text[:n], row[n:], text[n:]
	}
	return cols, nil
}

var errRow = fmt.Errorf("%w: malformed row", wire.ErrProtocol)
