package session

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"manada/internal/proxy/console"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/wire"
)

// about is what the console shows of a session.
type about struct {
	id                    uint64
	database, application string
	replication           string
	remote, local         string
	tls, serverTLS        string
	server, serverLocal   string
	since                 time.Time
}

// An ID is shown in a column of four bytes, as PgBouncer's: clients have 28 bits, and
// connections beside theirs a bit that says what they are.
const (
	clientBits = 28
	readerID   = 1 << 28 // that of a session for its reads
	sharedID   = 1 << 29 // one of a pool, with PostgreSQL's process
)

var lastID atomic.Uint64

// nextID is that of the next client, in a circle.
func nextID() uint64 {
	for {
		if id := lastID.Add(1) & (1<<clientBits - 1); id != 0 {
			return id
		}
	}
}

func aboutClient(c *client, b *pool.Backend) about {
	a := about{id: nextID(), database: c.startup.Database(), application: c.startup.Get("application_name"), replication: "none",
		remote: remote(c.conn), local: c.conn.LocalAddr().String(), tls: tlsOf(c.conn), since: time.Now()}
	if b.Conn != nil {
		a.serverTLS, a.server, a.serverLocal = tlsOf(b.Conn), b.Addr, b.Conn.LocalAddr().String()
	}
	if physical, _ := c.startup.Replication(); physical {
		a.replication = "physical"
	} else if c.startup.Walsender() {
		a.replication = "logical"
	}
	return a
}

// tlsOf names the protocol and cipher of a connection; empty: it is plain.
func tlsOf(conn net.Conn) string {
	t, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return ""
	}
	s := t.ConnectionState()
	return tls.VersionName(s.Version) + "/" + tls.CipherSuiteName(s.CipherSuite)
}

// disabled are the databases that let no new client in.
type disabled struct {
	mu    sync.Mutex
	names map[string]bool
}

func (d *disabled) set(name string, on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[string]bool{}
	}
	if d.names[name] = on; !on {
		delete(d.names, name)
	}
}

func (d *disabled) is(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names[name]
}

// wantsConsole says whether the client has come for the proxy itself. A database of
// PostgreSQL's with such a name is not hidden.
func (c *client) wantsConsole() bool {
	return slices.Contains(console.Databases, c.startup.Database()) && !c.secret.Rights.Exists && !c.startup.Walsender()
}

// maxConsoles bounds the clients of the console: they do not count among the others,
// so that there is a way in when these are too many.
const maxConsoles = 100

// serveConsole serves the client until it leaves.
func (c *client) serveConsole(ctx context.Context, final []byte) error {
	right := console.None
	switch {
	case !c.secret.Rights.Login:
		return wire.Fatal("28000", fmt.Sprintf("role \"%s\" is not permitted to log in", c.user), "")
	case c.secret.Admin:
		right = console.Admin
	case c.secret.Monitor:
		right = console.Read
	default:
		e := wire.Fatal("42501", fmt.Sprintf("permission denied for database \"%s\"", c.startup.Database()),
			"Superusers, members of the role manada_admin and, to read, of pg_monitor may use it.")
		e.Detail = "It is the proxy's console."
		return e
	}
	if c.consoles.Add(1) > maxConsoles {
		c.consoles.Add(-1)
		return wire.Fatal("53300", fmt.Sprintf("too many clients of the console already: the proxy allows %d", maxConsoles), "")
	}
	defer c.consoles.Add(-1)
	c.visitor.leave()
	if err := c.patience(ctx); err != nil {
		return err
	}
	in, key := &console.Interrupt{}, cancelKey{randomPID(), randomString(secretLength(c.version))}
	c.registry.visit(key, in)
	defer c.registry.left(key)
	out := wire.AppendAuth(wire.AppendAuth(nil, wire.AuthSASLFinal, final), wire.AuthOK, nil)
	for _, p := range console.Parameters {
		out = wire.AppendParameterStatus(out, p[0], p[1])
	}
	out = wire.AppendBackendKey(out, key.pid, []byte(key.secret))
	if _, err := c.conn.Write(out); err != nil {
		return err
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.Log.Info("console opened", "user", c.user, "remote", remote(c.conn), "orders", right == console.Admin)
	console.Serve(ctx, c.conn, c.Server.Console(c.user), right, in)
	return nil
}

// Console is what the console shows and does for a user, or whoever gives orders by
// another way: by is for the log.
func (s *Server) Console(by string) *console.Source {
	orders := map[string]console.Order{
		"PAUSE": s.known(s.pools.desk.Pause), "RESUME": plain(s.pools.desk.Resume), "RECONNECT": s.known(s.pools.desk.Reconnect),
		"WAIT_CLOSE": s.known(s.pools.desk.WaitClose), "KILL": s.known(s.kill), "KILL_CLIENT": plain(s.killClient),
		"DISABLE": s.known(func(_ context.Context, db string) *wire.Error { s.disabled.set(db, true); return nil }),
		"ENABLE":  plain(s.enable),
	}
	if s.options().ReadAgain != nil {
		orders["RELOAD"] = s.readAgain
	}
	for verb, do := range orders {
		orders[verb] = func(ctx context.Context, arg string) (string, *wire.Error) {
			s.Log.Info("order from the console", "verb", verb, "argument", arg, "user", by)
			return do(ctx, arg)
		}
	}
	var config func() []console.Setting
	if s.options().Config != nil { // which a Reload may change
		config = func() []console.Setting { return s.options().Config() }
	}
	return &console.Source{Version: s.options().Version, Clients: s.clientList, Servers: s.serverList, Pools: s.poolList,
		Databases: s.databaseList, Users: s.userList, Stats: s.statList, Sum: s.statSum, Pins: s.pinList, Paused: s.paused, Config: config, PoolSize: s.pools.most,
		Orders: orders}
}

// paused says whether PAUSE or KILL holds all databases.
func (s *Server) paused() (all bool) {
	s.pools.desk.View(func(b *rules.Book, _ rules.Moment) { all = b.Paused() })
	return all
}

// plain is an order that leaves nothing to say.
func plain(do func(context.Context, string) *wire.Error) console.Order {
	return func(ctx context.Context, arg string) (string, *wire.Error) { return "", do(ctx, arg) }
}

// known is an order for a database that there must be. Where PostgreSQL cannot be asked
// it is believed to be there: holding clients may be just what is wanted then.
func (s *Server) known(do func(context.Context, string) *wire.Error) console.Order {
	return func(ctx context.Context, database string) (string, *wire.Error) {
		if database != "" && s.missing(ctx, database) {
			return "", &wire.Error{Severity: "ERROR", Code: "3D000", Message: "no such database: " + database, Hint: "SHOW DATABASES lists those with clients or connections."}
		}
		return "", do(ctx, database)
	}
}

// missing says whether PostgreSQL says that it has no such database.
func (s *Server) missing(ctx context.Context, database string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	v := s.Topology.Current()
	if !v.HasPrimary() {
		return false
	}
	found, err := s.Verifiers.Lookup(ctx, v.Primary.Addr, "", database)
	return err == nil && !found.Rights.Exists
}

func (s *Server) enable(_ context.Context, database string) *wire.Error {
	if !s.disabled.is(database) {
		return &wire.Error{Severity: "ERROR", Code: "55000", Message: "database " + database + " is not disabled"}
	}
	s.disabled.set(database, false)
	return nil
}

// readAgain is RELOAD.
func (s *Server) readAgain(ctx context.Context, _ string) (note string, e *wire.Error) {
	restart, err := s.options().ReadAgain(ctx)
	switch {
	case ctx.Err() != nil:
		return "", &wire.Error{Severity: "ERROR", Code: "57014", Message: "canceling statement due to user request"}
	case err != nil:
		return "", &wire.Error{Severity: "ERROR", Code: "F0000", Message: "the configuration was not taken: " + err.Error(), Hint: "The old one stays in use. Try the file with: manada config check"}
	case len(restart) > 0:
		note = "restart the proxy for these keys to count: " + strings.Join(restart, ", ")
	}
	return note, nil
}

var errKilled = wire.Fatal("57P01", "terminating connection due to administrator command", "KILL was given at the proxy's console.")

// kill ends the clients and servers of a database, or all.
func (s *Server) kill(ctx context.Context, database string) *wire.Error {
	e := s.pools.desk.Kill(ctx, database)
	for _, one := range s.registry.list() {
		if h := one.handle.Load(); h != nil && (database == "" || one.about.database == database) {
			h.Kill(errKilled)
		}
	}
	return e
}

func (s *Server) killClient(_ context.Context, id string) *wire.Error {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return &wire.Error{Severity: "ERROR", Code: "22023", Message: "a client's id is a number, not " + id, Hint: "SHOW CLIENTS shows it in its last column."}
	}
	for _, one := range s.registry.list() {
		if h := one.handle.Load(); one.about.id == n && h != nil {
			h.Kill(wire.Fatal("57P01", "terminating connection due to administrator command", "KILL_CLIENT was given at the proxy's console."))
			return nil
		}
	}
	return &wire.Error{Severity: "ERROR", Code: "42704", Message: "there is no client " + id, Hint: "SHOW CLIENTS lists those that are connected."}
}

// inOrder are the sessions in the order in which they came.
func (s *Server) inOrder() []*session {
	return slices.SortedFunc(slices.Values(s.registry.list()), func(a, b *session) int { return cmp.Compare(a.about.id, b.about.id) })
}

func (s *Server) clientList() (out []console.Client) {
	shared := s.pools.held()
	for _, one := range s.inOrder() {
		a := &one.about
		v := console.Client{ID: a.id, User: one.user, Database: a.database, Replication: a.replication, State: "active",
			Addr: a.remote, Local: a.local, Connected: a.since, Requested: a.since, Server: a.id, TLS: a.tls, ApplicationName: a.application}
		if one.shared != nil {
			held := shared[one]
			v.State, v.Server, v.Wait = held.state, held.server, held.wait
		}
		out = append(out, v)
	}
	return out
}

func (s *Server) serverList() (out []console.Server) {
	for _, one := range s.inOrder() {
		a := &one.about
		v := console.Server{ID: a.id, User: one.user, Database: a.database, Replication: a.replication, State: "active", Addr: a.server, Local: a.serverLocal,
			Connected: a.since, Requested: a.since, Client: a.id, PID: one.main.pid, TLS: a.serverTLS, ApplicationName: a.application}
		if one.shared == nil {
			out = append(out, v)
		}
		if node := one.readsFrom(); node != "" {
			v.ID, v.Addr, v.Local, v.PID, v.Replication = a.id|readerID, s.addrOf(node), "", 0, "none"
			out = append(out, v)
		}
	}
	return append(out, s.pools.serverList()...)
}

func (s *Server) pinList() (out []console.Pin) {
	for _, one := range s.inOrder() {
		if why := one.pin.Load(); why != nil && *why != "" {
			a := &one.about
			out = append(out, console.Pin{ID: a.id, User: one.user, Database: a.database, ApplicationName: a.application, Reason: *why})
		}
	}
	return out
}

// readsFrom is the standby that the session is connected to; "": none.
func (s *session) readsFrom() string {
	if s.reads == nil {
		return ""
	}
	s.reads.mu.Lock()
	defer s.reads.mu.Unlock()
	return s.reads.node
}

func (s *Server) addrOf(node string) string {
	for _, m := range s.Topology.Current().Members {
		if m.Name == node {
			return m.Addr
		}
	}
	return ""
}

// poolList shows the pools, and of those who share nothing as many connections as
// clients.
func (s *Server) poolList() []console.Pool {
	type key struct{ database, user string }
	pools := map[key]*console.Pool{}
	find := func(database, user, mode string) *console.Pool {
		k := key{database, user}
		if pools[k] == nil {
			pools[k] = &console.Pool{Database: database, User: user, Mode: mode}
		}
		return pools[k]
	}
	s.pools.desk.View(func(b *rules.Book, now rules.Moment) {
		for _, v := range b.Pools(now) {
			p := find(v.Database, v.User, v.Mode.String())
			p.Waiting += v.Waiting
			p.Active = v.Clients - p.Waiting // at all nodes
			p.Servers, p.Idle, p.Login, p.MaxWait = p.Servers+v.Active, p.Idle+v.Idle, p.Login+v.Login, max(p.MaxWait, v.MaxWait)
		}
	})
	for _, one := range s.registry.list() {
		if one.shared == nil {
			p := find(one.about.database, one.user, "session")
			p.Active, p.Servers = p.Active+1, p.Servers+1
		}
		if one.readsFrom() != "" {
			find(one.about.database, one.user, "session").Servers++
		}
	}
	out := make([]console.Pool, 0, len(pools))
	for _, k := range slices.SortedFunc(maps.Keys(pools), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.database, b.database), cmp.Compare(a.user, b.user))
	}) {
		out = append(out, *pools[k])
	}
	return out
}

func (s *Server) databaseList() []console.Database {
	list, most := map[string]*console.Database{}, s.pools.most()
	find := func(name string) *console.Database {
		if list[name] == nil {
			of := s.options().Pool.For(name, "")
			d := &console.Database{Name: name, Mode: of.Mode.String(), Disabled: s.disabled.is(name), Size: cmp.Or(of.Size, most), Min: of.Min, Reserve: of.Reserve, Lifetime: of.Lifetime}
			if host, port, err := net.SplitHostPort(s.Topology.Current().Primary.Addr); err == nil {
				d.Host = host
				d.Port, _ = strconv.Atoi(port)
			}
			list[name] = d
		}
		return list[name]
	}
	for _, p := range s.poolList() {
		d := find(p.Database)
		d.Clients, d.Servers = d.Clients+p.Active+p.Waiting, d.Servers+p.Servers+p.Idle+p.Login
	}
	s.pools.desk.View(func(b *rules.Book, _ rules.Moment) {
		for _, v := range b.Databases() {
			d := find(v.Name)
			d.Paused, d.MaxClients = v.Paused, v.MaxClients
		}
	})
	s.disabled.mu.Lock()
	names := slices.Collect(maps.Keys(s.disabled.names))
	s.disabled.mu.Unlock()
	for _, name := range names {
		find(name)
	}
	var out []console.Database
	for _, name := range slices.Sorted(maps.Keys(list)) {
		out = append(out, *list[name])
	}
	return out
}

func (s *Server) userList() []console.User {
	list := map[string]*console.User{}
	for _, p := range s.poolList() {
		if list[p.User] == nil {
			list[p.User] = &console.User{Name: p.User}
		}
		list[p.User].Clients += p.Active + p.Waiting
		list[p.User].Servers += p.Servers + p.Idle + p.Login
	}
	s.pools.desk.View(func(b *rules.Book, _ rules.Moment) {
		for _, v := range b.Users() {
			if list[v.Name] != nil {
				list[v.Name].MaxClients = v.MaxClients
			}
		}
	})
	var out []console.User
	for _, name := range slices.Sorted(maps.Keys(list)) {
		out = append(out, *list[name])
	}
	return out
}
