package rotate

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/internal/store"
)

// fakeDatabase has passwords as PostgreSQL has them, and fails when told to.
type fakeDatabase struct {
	has    map[string]string
	used   pki.Secrets
	others pki.Secrets // that it may have instead
	broken error
	byHand []string // roles whose password would be taken for one that was changed by hand
	ended  []string // roles
	before time.Time
}

func (d *fakeDatabase) EndSessions(_ context.Context, roles []string, before time.Time) error {
	d.ended, d.before = roles, before
	return nil
}

func (d *fakeDatabase) Use(now, others pki.Secrets) error {
	d.used, d.others = now, others
	d.compare()
	return nil
}

// compare does what the host does once a second.
func (d *fakeDatabase) compare() {
	for role, p := range d.has {
		if role != cluster.RoleSuperuser && p != d.used[role] && p != d.others[role] {
			d.byHand = append(d.byHand, role)
		}
	}
}

func (d *fakeDatabase) ChangePasswords(_ context.Context, p map[string]string) (changed []string, err error) {
	if d.broken != nil {
		return nil, d.broken
	}
	for role, v := range p {
		d.has[role] = v
		changed = append(changed, role)
	}
	d.compare()
	return changed, nil
}

func (d *fakeDatabase) HasPassword(_ context.Context, role string, c ...string) (bool, error) {
	return slices.Contains(c, d.has[role]), nil
}

func (d *fakeDatabase) ReloadCertificate(context.Context) error { return nil }

// herdOfOne is a herd of one host, db1.
func herdOfOne(t *testing.T) (*pki.Identity, store.Store) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "db1")
	sealed, err := pki.Found(dir, "olivo", "db1", pki.KindData, nil)
	must(t, err)
	id, err := pki.Load(dir)
	must(t, err)
	st := store.NewMemory().Client("db1", "olivo", time.Second, time.Second)
	t.Cleanup(func() { st.Close() })
	must(t, st.CreateSecret(t.Context(), sealed))
	own, err := pki.CertificateOf(id.Certificate())
	must(t, err)
	list, err := st.UpdateRegistry(t.Context(), func(r *cluster.Registry) error { return r.Register(own, time.Now()) })
	must(t, err)
	must(t, id.Registry().Set(list))
	return id, st
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Sessions end when PostgreSQL has the new passwords of a removal, not earlier,
// not after a rotation that nobody was removed for, and not once more in a
// process that begins long after; one whose login was slow ends later.
func TestRemovalEndsSessions(t *testing.T) {
	id, st := herdOfOne(t)
	db := &fakeDatabase{has: map[string]string{cluster.RoleSuperuser: "by hand"}}
	k := New(Config{Identity: id, Store: st, Database: db, Up: func() []string { return []string{"db1"} }})
	must(t, k.Step(t.Context()))
	turns := func(k *Keeper, n int) {
		t.Helper()
		for range n {
			must(t, errors.Join(k.Step(t.Context()), k.lead(t.Context()), k.endFormer(t.Context())))
		}
	}
	order := func(removed ...string) {
		t.Helper()
		must(t, k.Order(t.Context(), pki.Order{What: []string{pki.RotatePasswords}, Removed: removed, At: time.Now()}))
	}
	order()
	turns(k, 5)
	if db.ended != nil {
		t.Error("a rotation for no removal ended sessions")
	}
	order("db2")
	db.broken = errors.New("away")
	for range 5 {
		_ = errors.Join(k.Step(t.Context()), k.lead(t.Context()))
		must(t, k.endFormer(t.Context()))
	}
	if db.ended != nil {
		t.Error("sessions were ended before the new passwords were in force")
	}
	db.broken = nil
	turns(k, 2)
	want := []string{cluster.RoleMonitor, cluster.RoleProxy, cluster.RoleReplication, cluster.RoleRewind}
	if !slices.Equal(db.ended, want) { // but the superuser's, which people changed
		t.Fatalf("sessions of %v were ended, want %v", db.ended, want)
	}
	first := db.before
	db.ended = nil
	turns(k, 2)
	if db.ended == nil || !db.before.Equal(first) {
		t.Errorf("again: %v before %v, want before %v", db.ended, db.before, first)
	}
	db.ended = nil
	later := New(k.cfg)
	later.born = time.Now().Add(2 * restarted)
	turns(later, 2)
	if db.ended != nil {
		t.Error("a process that begins later ended sessions once more")
	}
}

// A rotation that is interrupted between two steps is taken up by whoever leads
// next, from what the store says; a password that somebody changed stays.
func TestRotationResumes(t *testing.T) {
	id, st := herdOfOne(t)
	dir := id.Dir()
	before, err := pki.ReadHeld(dir)
	must(t, err)
	db := &fakeDatabase{has: maps.Clone(map[string]string(before.Passwords))}
	db.has[cluster.RoleSuperuser] = "by hand"
	keeper := func() *Keeper {
		return New(Config{Identity: id, Store: st, Database: db, Up: func() []string { return []string{"db1"} }})
	}
	turn := func(k *Keeper) error {
		return errors.Join(k.Step(t.Context()), k.lead(t.Context()))
	}
	k := keeper()
	must(t, k.Step(t.Context()))
	must(t, k.Order(t.Context(), pki.Order{What: []string{pki.RotatePasswords}, At: time.Now()}))
	db.broken = errors.New("away")
	for range 4 {
		err = turn(k)
	}
	if !errors.Is(err, db.broken) {
		t.Fatalf("with the database away: %v", err)
	}
	held, err := pki.ReadHeld(dir)
	must(t, err)
	if held.Next == nil || db.used[cluster.RoleRewind] != before.Passwords[cluster.RoleRewind] {
		t.Error("the host uses passwords that PostgreSQL does not have")
	}

	// The process is another one now.
	db.broken, k = nil, keeper()
	for range 4 {
		must(t, turn(k))
	}
	held, err = pki.ReadHeld(dir)
	must(t, err)
	if held.Next != nil || held.Passwords[cluster.RoleRewind] == before.Passwords[cluster.RoleRewind] {
		t.Error("the rotation was not taken up")
	}
	if db.has[cluster.RoleRewind] != held.Passwords[cluster.RoleRewind] || db.used[cluster.RoleRewind] != held.Passwords[cluster.RoleRewind] {
		t.Error("host and PostgreSQL have different passwords")
	}
	if db.has[cluster.RoleSuperuser] != "by hand" {
		t.Error("the superuser's password was changed although people chose it")
	}
	if len(db.byHand) > 0 {
		t.Errorf("the rotation is taken for a change by hand: %v", db.byHand)
	}
	if len(db.others) > 0 {
		t.Error("the former passwords still count as right")
	}
	if s, ok := k.State(); !ok || s.Spreading || s.Pending != nil || len(s.Behind) > 0 || s.Last.Kept[cluster.RoleSuperuser] == "" {
		t.Errorf("state: %+v", s)
	}
}
