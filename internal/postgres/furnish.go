package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/proxy/scram"
)

// Furnished is what Furnish found and did.
type Furnished struct {
	PutBack []string // what was not as it has to be, and is now
	// Contested is what somebody keeps changing: it was put back as often as it is
	// for now, and is not as it has to be.
	Contested []string
	// By are sessions that may have done it, as "role (application, address)".
	By []string
	// Failed is why something could not be put back, "" when all was.
	Failed string
}

const (
	putBackMost  = 3 // times in putBackEvery, each thing
	putBackEvery = time.Minute
)

// furnisher compares what the herd leans on inside the database with what is
// there. It has a session of its own that is open before somebody shuts the
// door, and on which no observation waits.
type furnisher struct {
	mu      sync.Mutex
	session session
	// prepared is the connection of session on which compareSQL was prepared.
	prepared *pgconn.PgConn
	times    map[string][]time.Time // when each thing was put back lately
	known    map[string]verified    // verifiers that were compared, by what same calls them
	unsaid   []string               // put back when an epoch opened, where nobody listened
}

// verified is the last comparison of a password with what is stored for it: it
// costs milliseconds of a processor.
type verified struct {
	stored, password string
	same             bool
}

// Furnish compares schema manada, its objects, the roles, their passwords and
// what they may do with what has to be, on a primary, and puts back what is
// not, each thing three times a minute at most; always when opening, as nothing
// opens without it. It commits here and waits for no standby, which may need the
// repair to come back. What somebody else has put in the place of ours is
// neither read nor called.
func (i *Instance) Furnish(ctx context.Context, opening bool) (Furnished, error) {
	f := &i.furnisher
	f.mu.Lock()
	defer f.mu.Unlock()
	var out Furnished
	for range 3 { // what was set aside may have held what comes after it
		wrong, err := i.compare(ctx)
		if err != nil {
			return out, fmt.Errorf("compare what the herd needs in the database: %w", err)
		}
		wrong = slices.DeleteFunc(wrong, func(w fixture) bool {
			contested := !opening && !slices.Contains(out.PutBack, w.name) && f.often(w.name, time.Now())
			if contested {
				out.Contested = append(out.Contested, w.name)
			}
			return contested
		})
		if len(wrong) == 0 {
			break
		}
		if err := i.putBack(ctx, wrong); err != nil {
			out.Failed = err.Error()
			break
		}
		for _, w := range wrong {
			if !slices.Contains(out.PutBack, w.name) {
				out.PutBack = append(out.PutBack, w.name)
				f.note(w.name, time.Now())
			}
		}
		out.Contested = nil // compared anew
	}
	if len(out.PutBack) > 0 {
		i.log.Warn("put back what was changed in the database", "what", out.PutBack)
	}
	if opening {
		f.unsaid = append(f.unsaid, out.PutBack...)
	} else {
		out.PutBack, f.unsaid = append(f.unsaid, out.PutBack...), nil
	}
	if len(out.Contested) > 0 || out.Failed != "" {
		out.By = i.suspects(ctx)
	}
	if out.Failed != "" && opening {
		return out, fmt.Errorf("put back what the herd needs in the database: %s", out.Failed)
	}
	return out, nil
}

// WarmFurnisher compares without putting anything back, on a standby: its
// session and PostgreSQL's caches are there when it is promoted.
func (i *Instance) WarmFurnisher(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, i.cfg.QueryTimeout)
	defer cancel()
	i.furnisher.mu.Lock()
	defer i.furnisher.mu.Unlock()
	_, err := i.compare(ctx)
	return err
}

// often says whether a thing was put back so often that the next time must wait.
func (f *furnisher) often(name string, now time.Time) bool {
	recent := slices.DeleteFunc(f.times[name], func(t time.Time) bool { return now.Sub(t) > putBackEvery })
	f.times[name] = recent
	return len(recent) >= putBackMost
}

func (f *furnisher) note(name string, now time.Time) {
	f.times[name] = append(f.times[name], now)
}

// compareSQL names what is not as it has to be, then gives what is stored for
// the roles' passwords.
var compareSQL = func() string {
	var parts []string
	for n, f := range fixtures {
		parts = append(parts, fmt.Sprintf("select %d where not coalesce((%s), false)", n, f.ok))
	}
	// Prepared once a session: planning it takes longer than running it.
	return "prepare manada_compare as " + strings.Join(parts, "\nunion all ") + ";\n" + compareAgainSQL
}()

const compareAgainSQL = "execute manada_compare;\nselect rolname, coalesce(rolpassword, '') from pg_authid where rolname like 'manada\\_%'"

func (i *Instance) compare(ctx context.Context) ([]fixture, error) {
	f := &i.furnisher
	var res []rows
	err := error(nil)
	// Before PostgreSQL is asked: until new ones count both are known here.
	now, others := i.eitherPasswords()
	again := f.session.conn != nil && f.session.conn == f.prepared
	if again {
		res, err = i.queryOn(ctx, &f.session, compareAgainSQL)
	}
	if !again || code(err) == noSuchStatement { // a new session
		if res, err = i.queryOn(ctx, &f.session, compareSQL); err == nil {
			res, f.prepared = res[1:], f.session.conn // without what prepare gave
		}
	}
	if err != nil {
		return nil, err
	}
	var wrong []fixture
	for _, r := range res[0] {
		wrong = append(wrong, fixtures[intOf(r[0])])
	}
	slices.SortFunc(wrong, func(a, b fixture) int { return index(a) - index(b) })
	stored := map[string]string{}
	for _, r := range res[1] {
		stored[string(r[0])] = string(r[1])
	}
	more, err := i.passwords(stored, now.byRole(), others.byRole())
	return append(wrong, more...), err
}

func index(f fixture) int {
	return slices.IndexFunc(fixtures, func(g fixture) bool { return g.name == f.name })
}

// byRole has the passwords of the roles that are looked after; the role of
// backups has none.
func (p Passwords) byRole() map[string]string {
	return map[string]string{cluster.RoleReplication: p.Replication, cluster.RoleRewind: p.Rewind,
		cluster.RoleMonitor: p.Monitor, cluster.RoleProxy: p.Proxy, cluster.RoleBackup: ""}
}

// passwords are the fixtures of those that are stored neither as they are wanted
// nor, while they are being changed, as the others.
func (i *Instance) passwords(stored, want, others map[string]string) ([]fixture, error) {
	var wrong []fixture
	for _, role := range slices.Sorted(maps.Keys(want)) {
		if i.furnisher.same(role, stored[role], want[role]) {
			continue
		}
		if others[role] != "" && i.furnisher.same("other "+role, stored[role], others[role]) {
			continue
		}
		value := "null"
		if want[role] != "" {
			salt := make([]byte, 16)
			_, _ = rand.Read(salt) // never fails
			keys, err := scram.FromPassword(want[role], salt, scram.DefaultIterations)
			if err != nil {
				return nil, err
			}
			value = literal(keys.Verifier.String())
		}
		wrong = append(wrong, fixture{name: "password of " + role, make: []string{"alter role " + role + " password " + value}})
	}
	return wrong, nil
}

// same compares; what is the name under which the outcome is remembered.
func (f *furnisher) same(what, stored, password string) bool {
	if k, ok := f.known[what]; ok && k.stored == stored && k.password == password {
		return k.same
	}
	same := stored == ""
	if password != "" {
		v, err := scram.ParseVerifier(stored)
		same = err == nil && scram.Matches(v, password)
	}
	f.known[what] = verified{stored, password, same}
	return same
}

// passwordsNow are the roles' current ones.
func (i *Instance) passwordsNow() Passwords {
	now, _ := i.eitherPasswords()
	return now
}

// eitherPasswords are the current ones, and those that PostgreSQL may have
// instead while they are being changed.
func (i *Instance) eitherPasswords() (now, others Passwords) {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	return i.cfg.Passwords, i.cfg.OtherPasswords
}

// briefly keeps a lock that somebody holds from keeping the furnisher for longer
// than a moment.
const briefly = "set local lock_timeout = '300ms'; "

// putBack does it in one transaction. Sessions that hold locks on what has to
// change are ended, so that the next try comes through.
func (i *Instance) putBack(ctx context.Context, wrong []fixture) error {
	var sql strings.Builder
	sql.WriteString(briefly)
	var names []string
	for _, w := range wrong {
		names = append(names, w.name)
		sql.WriteString(strings.Join(w.make, ";\n") + ";\n")
	}
	_, err := i.queryOn(ctx, &i.furnisher.session, sql.String())
	if code(err) == lockNotAvailable {
		_, _ = i.queryOn(ctx, &i.furnisher.session, endHoldersSQL)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

const (
	lockNotAvailable = "55P03"
	noSuchStatement  = "26000"
)

// endHoldersSQL ends who holds a lock on something in schema manada.
const endHoldersSQL = `select pg_terminate_backend(l.pid) from pg_locks l join pg_class c on c.oid = l.relation
 where l.database = (select oid from pg_database where datname = current_database())
 and c.relnamespace = (select oid from pg_namespace where nspname = 'manada') and l.granted and l.pid <> pg_backend_pid()`

// suspects are sessions of others whose last statement speaks of our things.
func (i *Instance) suspects(ctx context.Context) []string {
	res, err := i.queryOn(ctx, &i.furnisher.session, `select distinct usename || ' (' || concat_ws(', ', nullif(application_name, ''), coalesce(host(client_addr), 'this host')) || ')'
 from pg_stat_activity where backend_type = 'client backend' and application_name not like 'manada%' and usename not like 'manada\_%'
 and (query ilike '%manada%' or query ilike '%database%postgres%') limit 5`)
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range res[0] {
		out = append(out, string(r[0]))
	}
	return out
}
