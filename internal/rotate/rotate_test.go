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

// A rotation that is interrupted between two steps is taken up by whoever leads
// next, from what the store says; a password that somebody changed stays.
func TestRotationResumes(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "db1")
	sealed, err := pki.Found(dir, "olivo", "db1", pki.KindData, nil)
	must(err)
	id, err := pki.Load(dir)
	must(err)
	st := store.NewMemory().Client("db1", "olivo", time.Second, time.Second)
	t.Cleanup(func() { st.Close() })
	must(st.CreateSecret(t.Context(), sealed))
	own, err := pki.CertificateOf(id.Certificate())
	must(err)
	list, err := st.UpdateRegistry(t.Context(), func(r *cluster.Registry) error { return r.Register(own, time.Now()) })
	must(err)
	must(id.Registry().Set(list))
	before, err := pki.ReadHeld(dir)
	must(err)
	db := &fakeDatabase{has: maps.Clone(map[string]string(before.Passwords))}
	db.has[cluster.RoleSuperuser] = "by hand"
	keeper := func() *Keeper {
		return New(Config{Identity: id, Store: st, Database: db, Up: func() []string { return []string{"db1"} }})
	}
	turn := func(k *Keeper) error {
		return errors.Join(k.Step(t.Context()), k.lead(t.Context()))
	}
	k := keeper()
	must(k.Step(t.Context()))
	must(k.Order(t.Context(), pki.Order{What: []string{pki.RotatePasswords}, At: time.Now()}))
	db.broken = errors.New("away")
	for range 4 {
		err = turn(k)
	}
	if !errors.Is(err, db.broken) {
		t.Fatalf("with the database away: %v", err)
	}
	held, err := pki.ReadHeld(dir)
	must(err)
	if held.Next == nil || db.used[cluster.RoleRewind] != before.Passwords[cluster.RoleRewind] {
		t.Error("the host uses passwords that PostgreSQL does not have")
	}

	// The process is another one now.
	db.broken, k = nil, keeper()
	for range 4 {
		must(turn(k))
	}
	held, err = pki.ReadHeld(dir)
	must(err)
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
