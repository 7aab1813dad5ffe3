package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"manada/internal/proxy/wire"
)

// Rights are what PostgreSQL says of a client's role and database at its log-in.
type Rights struct {
	Login     bool // the role has LOGIN
	Superuser bool
	Exists    bool // the database does
	Allowed   bool // it has ALLOW_CONNECTIONS
	Connect   bool // the role has CONNECT on it
	// RoleLimit and DatabaseLimit are the CONNECTION LIMITs, -1 for none. They hold
	// for clients, as if each had a connection of its own; never for superusers.
	RoleLimit, DatabaseLimit int
	// Stamp is anything that is another one once the settings of the role or the
	// database are, or one of them is another: servers from before are not handed out
	// again.
	Stamp string
}

// invalid is the limit of a database whose DROP was interrupted.
const invalid = -2

// Refuse says why PostgreSQL would not let the role into the database beside so many
// others of the same role and in the same database: in its order, with its words.
func (r Rights) Refuse(user, database string, ofRole, inDatabase int) *wire.Error {
	switch {
	case !r.Login:
		return wire.Fatal("28000", fmt.Sprintf("role \"%s\" is not permitted to log in", user), "")
	case r.roleIsFull(ofRole):
		return errRole(user)
	case !r.Exists:
		return wire.Fatal("3D000", fmt.Sprintf("database \"%s\" does not exist", database), "")
	case r.DatabaseLimit == invalid:
		return wire.Fatal("55000", fmt.Sprintf("cannot connect to invalid database \"%s\"", database), "Use DROP DATABASE to drop invalid databases.")
	case !r.Allowed:
		return wire.Fatal("55000", fmt.Sprintf("database \"%s\" is not currently accepting connections", database), "")
	case !r.Superuser && !r.Connect:
		e := wire.Fatal("42501", fmt.Sprintf("permission denied for database \"%s\"", database), "")
		e.Detail = "User does not have CONNECT privilege."
		return e
	case !r.Superuser && r.DatabaseLimit >= 0 && inDatabase >= r.DatabaseLimit:
		return wire.Fatal(tooMany, fmt.Sprintf("too many connections for database \"%s\"", database), "")
	}
	return nil
}

// roleIsFull says whether the role's CONNECTION LIMIT is reached.
func (r Rights) roleIsFull(count int) bool {
	return !r.Superuser && r.RoleLimit >= 0 && count >= r.RoleLimit
}

// Attach counts a client that has proved who it is and is to share connections, unless
// that would be one too many or its database is disabled. Detach ends it.
func (b *Book) Attach(now Moment, database, user string, r Rights, out []Decision) (*Account, *wire.Error, []Decision) {
	a, err, out := b.admit(now, database, user, r, out)
	if err != nil {
		return nil, err, out
	}
	a.clients++
	for _, p := range a.pools {
		p.retry = backoff{} // it may have been mended: one log-in tries
	}
	return a, nil, b.Changed(now, a, r.Stamp, out)
}

// Own is a client that has a connection of its own.
type Own struct {
	account *Account // nil: it belongs to no database
	user    string
}

// Enter counts a client that has a connection of its own, under the same limits. Leave
// ends it.
func (b *Book) Enter(now Moment, database, user string, r Rights, out []Decision) (*Own, *wire.Error, []Decision) {
	a, err, out := b.admit(now, database, user, r, out)
	if err != nil {
		return nil, err, out
	}
	a.own++
	return &Own{a, user}, nil, out
}

// EnterPhysical counts one that replicates physically: in no database. What else
// PostgreSQL looks at it does itself.
func (b *Book) EnterPhysical(user string, r Rights) (*Own, *wire.Error) {
	count := 0
	if t := b.users[user]; t != nil {
		count = t.clients
	}
	switch {
	case r.roleIsFull(count):
		return nil, errRole(user)
	case b.exceeds(b.clients, b.cfg.MaxClients):
		return nil, errTooMany(b.cfg.MaxClients)
	case b.exceeds(count, b.cfg.maxClients("", user)):
		return nil, errClients(fmt.Sprintf("role \"%s\"", user), b.cfg.maxClients("", user))
	}
	b.tally(user).clients++
	b.clients++
	return &Own{user: user}, nil
}

// Leave ends what Enter or EnterPhysical began.
func (b *Book) Leave(o *Own) {
	if a := o.account; a != nil {
		a.own--
		b.dismiss(a)
		return
	}
	b.users[o.user].clients--
	b.clients--
	b.forgetUser(o.user)
}

// admit counts a client of an account, unless it is refused.
func (b *Book) admit(now Moment, database, user string, r Rights, out []Decision) (*Account, *wire.Error, []Decision) {
	if err := b.refuses(database, user, r); err != nil {
		if a := b.accounts[key{database, user}]; a != nil && revokes(err) {
			out = b.stale(now, a, out)
		}
		return nil, err, out
	}
	a := b.account(database, user)
	a.Database.clients++
	a.tally.clients++
	b.clients++
	return a, nil, out
}

// dismiss ends what admit began.
func (b *Book) dismiss(a *Account) {
	a.Database.clients--
	a.tally.clients--
	b.clients--
	b.forget(a)
}

// exceeds says whether one more would be too many; limit 0 is none.
func (b *Book) exceeds(n, limit int) bool { return limit > 0 && n >= limit && b.without != clientLimit }

func (b *Book) refuses(database, user string, r Rights) *wire.Error {
	count, ofUser, ofDB := 0, 0, 0
	if d := b.databases[database]; d != nil {
		if d.disabled {
			return Disabled(database)
		}
		ofDB = d.clients
	}
	if a := b.accounts[key{database, user}]; a != nil {
		count = a.clients + a.own
	}
	if t := b.users[user]; t != nil {
		ofUser = t.clients
	}
	if err := r.Refuse(user, database, ofUser, ofDB); err != nil {
		return err
	}
	switch {
	case b.exceeds(b.clients, b.cfg.MaxClients):
		return errTooMany(b.cfg.MaxClients)
	case b.exceeds(ofDB, b.cfg.maxClients(database, "")):
		return errClients(fmt.Sprintf("database \"%s\"", database), b.cfg.maxClients(database, ""))
	case b.exceeds(ofUser, b.cfg.maxClients("", user)):
		return errClients(fmt.Sprintf("role \"%s\"", user), b.cfg.maxClients("", user))
	case b.exceeds(count, b.cfg.maxClients(database, user)):
		return errClients(fmt.Sprintf("role \"%s\" in database \"%s\"", user, database), b.cfg.maxClients(database, user))
	}
	return nil
}

// Changed says what PostgreSQL knows of an account's role and database now. With
// another stamp than before, servers from before are not handed out again. An
// empty one says nothing.
func (b *Book) Changed(now Moment, a *Account, stamp string, out []Decision) []Decision {
	if stamp == "" || stamp == a.stamp {
		return out
	}
	first := a.stamp == ""
	a.stamp = stamp
	if first {
		return out
	}
	return b.stale(now, a, out)
}

// Revoked says that a role may not log in to the account's database any more, or
// that its right is in doubt: its servers are handed to nobody.
func (b *Book) Revoked(now Moment, a *Account, out []Decision) []Decision {
	return b.stale(now, a, out)
}

// stale closes an account's servers, used ones when they are given back.
func (b *Book) stale(now Moment, a *Account, out []Decision) []Decision {
	a.generation++
	for _, p := range a.pools {
		out = b.trim(p, out)
		out = b.serve(now, p, out)
	}
	return b.settle(out)
}

// Detach ends what Attach began. The client's claims were withdrawn and its
// servers given back before.
func (b *Book) Detach(a *Account) {
	if a.clients--; a.clients == 0 && a.Settings.Min > 0 {
		b.soon(b.ticked) // nothing is to be kept any more
	}
	b.dismiss(a)
}

// account finds or makes one.
func (b *Book) account(database, user string) *Account {
	k := key{database, user}
	if a := b.accounts[k]; a != nil {
		return a
	}
	a := &Account{Database: b.database(database), User: user, Settings: b.cfg.For(database, user), tally: b.tally(user)}
	a.tally.accounts++
	b.accounts[k] = a
	a.Database.accounts = append(a.Database.accounts, a)
	return a
}

// tally finds or makes that of a user.
func (b *Book) tally(user string) *tally {
	if b.users[user] == nil {
		b.users[user] = &tally{}
	}
	return b.users[user]
}

func (b *Book) forgetUser(user string) {
	if *b.users[user] == (tally{}) {
		delete(b.users, user)
	}
}

func (b *Book) database(name string) *Database {
	d := b.databases[name]
	if d == nil {
		d = &Database{Name: name}
		b.databases[name] = d
	}
	return d
}

// forget drops an account that nobody uses and that holds nothing.
func (b *Book) forget(a *Account) {
	if a.clients+a.own > 0 || slices.ContainsFunc(a.pools, func(p *Pool) bool { return len(p.servers) > 0 || p.waiting.n > 0 || p.due > 0 }) {
		return
	}
	for _, p := range a.pools {
		p.unlist()
		p.Node.pools = slices.DeleteFunc(p.Node.pools, func(q *Pool) bool { return q == p })
	}
	delete(b.accounts, key{a.Database.Name, a.User})
	a.tally.accounts--
	b.forgetUser(a.User)
	d := a.Database
	d.accounts = slices.DeleteFunc(d.accounts, func(x *Account) bool { return x == a })
	b.forgetDatabase(d)
}

func (b *Book) forgetDatabase(d *Database) {
	if len(d.accounts) == 0 && !d.paused && !d.disabled {
		delete(b.databases, d.Name)
	}
}

// sortedAccounts gives them in an order that does not differ from run to run.
func (b *Book) sortedAccounts() []*Account {
	return slices.SortedFunc(maps.Values(b.accounts), func(x, y *Account) int {
		return cmp.Or(cmp.Compare(x.Database.Name, y.Database.Name), cmp.Compare(x.User, y.User))
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
