package pool

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"
	"time"

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

	mu     sync.Mutex
	cache  map[question]cached
	nodes  map[string]*lookups
	closed bool
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

// lookups is one node's queue. turn holds a token while nobody queries.
type lookups struct {
	addr    string
	turn    chan struct{}
	backend *Backend // used by the holder of the token
	pending map[question]*lookup
}

type lookup struct {
	done   chan struct{}
	secret Secret
	err    error
}

// Lookup asks the node at addr for what is stored for a role that wants to log in to
// a database. The query is not tied to ctx, which only bounds the wait: others may
// wait for the same answer.
func (v *Verifiers) Lookup(ctx context.Context, addr, role, database string) (Secret, error) {
	q := question{role, database}
	v.mu.Lock()
	if c, ok := v.cache[q]; ok && time.Since(c.at) < v.TTL {
		v.mu.Unlock()
		return c.secret, nil
	}
	if v.closed {
		v.mu.Unlock()
		return Secret{}, context.Canceled
	}
	if v.nodes == nil {
		v.nodes, v.cache = map[string]*lookups{}, map[question]cached{}
	}
	n := v.nodes[addr]
	if n == nil {
		n = &lookups{addr: addr, turn: make(chan struct{}, 1), pending: map[question]*lookup{}}
		n.turn <- struct{}{}
		v.nodes[addr] = n
	}
	l := n.pending[q]
	if l == nil {
		l = &lookup{done: make(chan struct{})}
		n.pending[q] = l
		go v.run(context.WithoutCancel(ctx), n, l, q)
	}
	v.mu.Unlock()
	select {
	case <-l.done:
		return l.secret, l.err
	case <-ctx.Done():
		return Secret{}, fmt.Errorf("look up role on %s: %w", addr, context.Cause(ctx))
	}
}

// run waits for its turn and asks. The wait is bounded because every turn is.
func (v *Verifiers) run(ctx context.Context, n *lookups, l *lookup, q question) {
	defer close(l.done)
	<-n.turn
	defer func() { n.turn <- struct{}{} }()
	v.mu.Lock()
	delete(n.pending, q) // from now on a newcomer needs a younger answer
	closed := v.closed
	v.mu.Unlock()
	if closed {
		l.err = context.Canceled
		return
	}
	ctx, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	if l.secret, l.err = v.ask(ctx, n, q); l.err != nil {
		l.err = fmt.Errorf("look up role: %w", l.err)
		return
	}
	if v.TTL > 0 {
		v.mu.Lock()
		v.remember(q, l.secret)
		v.mu.Unlock()
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
	nodes := v.nodes
	v.mu.Unlock()
	for _, n := range nodes {
		<-n.turn
		n.drop()
		n.turn <- struct{}{}
	}
}

func (n *lookups) drop() {
	if n.backend != nil {
		n.backend.Conn.Close()
		n.backend = nil
	}
}

// ask uses the kept connection; if that has died meanwhile, a new one.
func (v *Verifiers) ask(ctx context.Context, n *lookups, q question) (Secret, error) {
	if n.backend != nil {
		if s, err := n.query(ctx, q); err == nil {
			return s, nil
		}
		n.drop()
	}
	b, err := v.Dialer.openOwn(ctx, n.addr, own(v.User, v.Passwords, v.Database))
	if err != nil {
		return Secret{}, err
	}
	n.backend = b
	s, err := n.query(ctx, q)
	if err != nil {
		n.drop()
	}
	return s, err
}

// lookupSQL also asks whether the role's sessions would hide warnings from the
// proxy by default, in any database (finding H9), what PostgreSQL checks at a log-in
// beside the password, a value that is another one once the role or the database was
// made anew or their settings changed, and who may use the proxy's console.
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
	from (select) one left join manada.user_lookup($1) u on true
	left join pg_catalog.pg_roles r on r.rolname = u.rolname left join pg_catalog.pg_database d on d.datname = $2`

// lookupColumns is how many columns lookupSQL has.
const lookupColumns = 14

func (n *lookups) query(ctx context.Context, q question) (Secret, error) {
	deadline, _ := ctx.Deadline()
	if err := n.backend.Conn.SetDeadline(deadline); err != nil {
		return Secret{}, err
	}
	var s Secret
	err := n.backend.ask(askMessages(lookupSQL, []string{q.role, q.database}), func(cols []string) error {
		n, _ := strconv.Atoi(cols[3]) // before version 16 there is no such setting
		s = Secret{Exists: cols[0] != "", Password: cols[1], Muted: cols[2] == "t", Iterations: n, Rights: rightsOf(cols[4:12]),
			Admin: cols[12] == "t", Monitor: cols[13] == "t"}
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
	bad := fmt.Errorf("%w: malformed row", wire.ErrProtocol)
	if len(row) < 2 || int(binary.BigEndian.Uint16(row)) != n {
		return nil, bad
	}
	row = row[2:]
	cols := make([]string, n)
	for i := range cols {
		if len(row) < 4 {
			return nil, bad
		}
		n := int32(binary.BigEndian.Uint32(row))
		row = row[4:]
		if n < 0 {
			continue
		}
		if int(n) > len(row) {
			return nil, bad
		}
		cols[i], row = string(row[:n]), row[n:]
	}
	return cols, nil
}
