package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"manada/internal/cluster"
)

// rotating is a herd of three hosts with a vault in memory instead of a store.
type rotating struct {
	t     *testing.T
	vault []byte
	ids   map[string]*Identity
}

func newRotating(t *testing.T) *rotating {
	t.Helper()
	db1, ca, sealed := founded(t, "olivo", "db1")
	r := &rotating{t: t, vault: sealed, ids: map[string]*Identity{"db1": db1}}
	for node, kind := range map[string]string{"db2": KindData, "px": KindProxy} {
		id, err := Issue(db1, ca, filepath.Join(t.TempDir(), node), node, kind, nil)
		must(t, err)
		r.ids[node] = id
	}
	for node := range r.ids {
		r.register(nil)
		r.refresh(node, false)
	}
	return r
}

// register adds a certificate to the list that db1 has and gives the list to all.
func (r *rotating) register(cert []byte) {
	r.t.Helper()
	list := r.ids["db1"].Registry().List()
	if cert != nil {
		c, err := Registered(cert)
		must(r.t, err)
		must(r.t, list.Register(c, time.Now()))
	}
	list.Rev++
	for _, id := range r.ids {
		must(r.t, id.Registry().Set(list))
	}
}

func (r *rotating) open() *Vault {
	v, err := ReadVault(r.vault)
	must(r.t, err)
	return v
}

func (r *rotating) change(f func(*Vault)) {
	v := r.open()
	f(v)
	b, err := v.Encode()
	must(r.t, err)
	r.vault = b
}

func (r *rotating) hosts() []Recipient {
	return slices.DeleteFunc(Recipients(r.ids["db1"].Registry().List()), func(to Recipient) bool { return r.ids[to.Node] == nil })
}

// refresh does what the exchange of two hosts does: what the host holds is
// noted, it takes up what is new, and gets a certificate if it wants one.
func (r *rotating) refresh(node string, certificate bool) {
	r.t.Helper()
	id := r.ids[node]
	q, err := id.NewRefresh(certificate, "")
	must(r.t, err)
	b, _, err := q.Open()
	must(r.t, err)
	r.change(func(v *Vault) {
		v.Note(b)
	})
	if !certificate {
		return
	}
	_, err = r.ids["db1"].TakeUp(r.open()) // who signs takes up the new kek first
	must(r.t, err)
	kek, err := r.ids["db1"].KEK()
	must(r.t, err)
	ca, err := OpenCAKey(kek, r.open().Authority)
	must(r.t, err)
	cert, err := ca.Sign(b.CSR, id.Name(), hostsOf(id.cert.Load().Leaf), time.Now())
	must(r.t, err)
	r.register(cert)
	must(r.t, id.InstallRefreshed(cert, r.open().CertGeneration))
	r.refresh(node, false)
}

func (r *rotating) takeUp(node string) {
	r.t.Helper()
	_, err := r.ids[node].TakeUp(r.open())
	must(r.t, err)
	want, err := r.ids[node].WantsCertificate(r.open())
	must(r.t, err)
	r.refresh(node, want)
}

func (r *rotating) begin(by string, keep map[string]string, o Order) {
	r.t.Helper()
	r.change(func(v *Vault) {
		must(r.t, v.Ask(o))
		must(r.t, v.Begin(r.ids[by], r.hosts(), keep, time.Now()))
	})
}

func (r *rotating) held(node string) Held {
	h, err := ReadHeld(r.ids[node].Dir())
	must(r.t, err)
	return h
}

// speaks connects two hosts.
func (r *rotating) speaks(from, to string) error {
	a, b := r.ids[from], r.ids[to]
	must(r.t, a.Reload())
	must(r.t, b.Reload())
	client := a.ClientTLSAny()
	if b.Kind() == KindProxy {
		client = insecure(client)
	}
	server, caller := shake(r.t, b.ServerTLS(), client)
	return errors.Join(server, caller)
}

func TestPasswordsSpreadBeforeTheyCount(t *testing.T) {
	r := newRotating(t)
	before := r.held("db1").Passwords
	r.begin("db2", map[string]string{cluster.RoleSuperuser: "changed by hand"}, Order{What: []string{RotatePasswords}})
	for n := range r.ids {
		r.takeUp(n)
	}
	if w := r.open().Without([]string{"db1", "db2", "px"}); len(w) > 0 {
		t.Errorf("%v do not hold the newest generation", w)
	}
	h := r.held("db1")
	if !equalSecrets(h.Passwords, before) {
		t.Error("passwords changed before PostgreSQL had them")
	}
	if c := r.held("px").Candidates(cluster.RoleProxy); len(c) != 2 || c[0] != before[cluster.RoleProxy] || c[1] != h.Next[cluster.RoleProxy] {
		t.Errorf("a proxy tries %d passwords, want the old one and then the new one", len(c))
	}
	if _, leaked := r.held("px").Next[cluster.RoleReplication]; leaked {
		t.Error("a proxy was given manada_replication's password")
	}
	r.change(func(v *Vault) { v.Spreading = false })
	for n := range r.ids {
		r.takeUp(n)
		after := r.held(n)
		if after.Next != nil {
			t.Errorf("%s still waits for PostgreSQL", n)
		}
		for role, p := range after.Passwords {
			if changed := p != before[role]; changed == (role == cluster.RoleSuperuser) {
				t.Errorf("%s: password of %s changed: %v", n, role, changed)
			}
		}
	}
	if why := r.open().Last.Kept[cluster.RoleSuperuser]; why != "changed by hand" {
		t.Errorf("the superuser's was kept because %q", why)
	}
}

func TestChosenPasswordsStay(t *testing.T) {
	r := newRotating(t)
	h := r.held("db1")
	must(t, GiveSecrets(r.ids["db1"].Dir(), h.Passwords, []string{cluster.RoleSuperuser}))
	r.begin("db1", nil, Order{What: []string{RotatePasswords}})
	r.takeUp("db2")
	if got := r.held("db2"); got.Next[cluster.RoleSuperuser] != h.Passwords[cluster.RoleSuperuser] || !slices.Equal(got.Chosen, []string{cluster.RoleSuperuser}) {
		t.Error("a password that people chose was changed, or it is not known any more that they did")
	}
}

// A new authority beside the old one: everybody speaks to everybody at every
// step, and an application with the old ca.crt believes the new certificates.
func TestAuthorityChangesWithoutSilence(t *testing.T) {
	r := newRotating(t)
	oldCA := r.ids["db1"].CAPEM()
	all := func(when string) {
		t.Helper()
		for _, from := range []string{"db1", "db2", "px"} {
			for _, to := range []string{"db1", "db2"} {
				if err := r.speaks(from, to); err != nil {
					t.Errorf("%s: %s cannot speak to %s: %v", when, from, to, err)
				}
			}
		}
	}
	r.begin("db1", nil, Order{What: []string{RotateCA}})
	all("begun")
	for _, n := range []string{"db1", "px", "db2"} {
		r.takeUp(n)
		all(n + " has taken it up")
	}
	if b := r.open().Behind([]string{"db1", "db2", "px"}); len(b) > 0 {
		t.Errorf("behind: %v", b)
	}
	if err := believes(oldCA, r.ids["db1"]); err != nil {
		t.Errorf("an application with the old ca.crt: %v", err)
	}
	v := r.open()
	if err := v.Ask(Order{What: []string{RotateCA}}); err == nil {
		t.Error("a third authority was begun while applications may know only the first")
	}
	r.begin("db2", nil, Order{What: []string{RotateFinish}})
	for _, n := range []string{"db2", "px", "db1"} {
		r.takeUp(n)
		all(n + " has finished")
	}
	if err := believes(oldCA, r.ids["db1"]); err == nil {
		t.Error("an application with the old ca.crt still believes")
	}
	if err := believes(r.ids["px"].CAPEM(), r.ids["db1"]); err != nil {
		t.Errorf("an application with the new ca.crt: %v", err)
	}
}

// What a removed host holds opens nothing after Closed.
func TestRemovalLeavesNothing(t *testing.T) {
	r := newRotating(t)
	gone := r.ids["db2"]
	oldKEK, err := gone.KEK()
	must(t, err)
	oldCA, err := OpenCAKey(oldKEK, r.open().Authority)
	must(t, err)
	delete(r.ids, "db2")
	r.begin("db1", nil, Order{What: []string{RotatePasswords, RotateCA}, Removed: []string{"db2"}})
	for n := range r.ids {
		r.takeUp(n)
	}
	r.change(func(v *Vault) {
		if !v.Closing || v.Idle() {
			t.Error("the old authority would be believed for ever")
		}
		must(t, v.Closed())
		v.Spreading = false
	})
	for n := range r.ids {
		r.takeUp(n)
	}
	v := r.open()
	if _, err := OpenCAKey(oldKEK, v.Authority); err == nil {
		t.Error("the old kek opens the new authority's key")
	}
	if _, ok := v.Parcels["db2"]; ok {
		t.Error("there is a parcel for the removed host")
	}
	if _, err := gone.TakeUp(v); err == nil {
		t.Error("the removed host took the new secrets up")
	}
	r.ids["db2"] = gone
	if err := r.speaks("db2", "db1"); err == nil {
		t.Error("the old certificate opens a port")
	}
	minted, err := Issue(gone, oldCA, filepath.Join(t.TempDir(), "evil"), "db9", KindData, nil)
	must(t, err)
	r.ids["evil"] = minted
	r.register(pemOf([]*x509.Certificate{minted.Certificate()})) // as if the list had been misled
	if err := r.speaks("evil", "db1"); err == nil {
		t.Error("a certificate that was minted with the old key opens a port")
	}
	if err := r.speaks("px", "db1"); err != nil {
		t.Errorf("those who stay cannot speak: %v", err)
	}
	if err := believes(gone.CAPEM(), r.ids["db1"]); err != nil {
		t.Errorf("an application with the old ca.crt is cut off: %v", err)
	}
}

// A host that was off during all of it proves itself with its registered key,
// for its certificate is believed no more.
func TestHostThatWasOffComesBack(t *testing.T) {
	r := newRotating(t)
	late := r.ids["px"]
	r.begin("db1", nil, Order{What: []string{RotatePasswords, RotateCA}, Removed: []string{"x"}})
	r.takeUp("db1")
	r.takeUp("db2")
	r.change(func(v *Vault) { v.Spreading = false; must(t, v.Closed()) })
	r.takeUp("db1")
	r.takeUp("db2")
	if err := r.speaks("px", "db1"); err == nil {
		t.Fatal("the old certificate still opens a port")
	}
	b, err := json.Marshal(r.open().For("px", late.Kind()))
	must(t, err)
	v, err := ReadVault(b)
	must(t, err)
	if v.Authority != nil {
		t.Error("a proxy was given the authority's key")
	}
	_, err = late.TakeUp(v)
	must(t, err)
	r.takeUp("px")
	if err := r.speaks("px", "db1"); err != nil {
		t.Errorf("it is not back: %v", err)
	}
	if h := r.held("px"); !equalSecrets(h.Passwords, r.held("db1").Passwords.For(KindProxy)) {
		t.Error("it does not have the new passwords")
	}
}

// A refresh that was changed or made by somebody else is refused.
func TestRefreshIsSignedByItsKey(t *testing.T) {
	r := newRotating(t)
	q, err := r.ids["db2"].NewRefresh(true, "")
	must(t, err)
	if _, _, err := q.Open(); err != nil {
		t.Fatal(err)
	}
	forged := q
	forged.Body = bytes.Replace(q.Body, []byte(`"db2"`), []byte(`"db1"`), 1)
	if _, _, err := forged.Open(); err == nil {
		t.Error("a request for another node was taken")
	}
}

// Key and certificate change together: wherever it is interrupted, one of the
// pairs is whole after the next Load.
func TestKeyChangeIsWhole(t *testing.T) {
	id, ca, _ := founded(t, "olivo", "db1")
	for cut := range 4 {
		key, err := newKey()
		must(t, err)
		req, err := requestWith(key, id.Name(), nil)
		must(t, err)
		cert, err := ca.Sign(req.CSR, id.Name(), nil, time.Now())
		must(t, err)
		text, err := keyPEM(key)
		must(t, err)
		must(t, writeFile(id.Dir(), fileNextKey, text, 0o600))
		want := id.cert.Load().Leaf
		if cut > 0 {
			must(t, writeFile(id.Dir(), fileNextCert, cert, 0o644))
			want, err = parseCert(cert)
			must(t, err)
		}
		if cut > 1 {
			must(t, writeFile(id.Dir(), fileKey, text, 0o600))
		}
		if cut > 2 {
			must(t, writeFile(id.Dir(), fileCert, cert, 0o644))
		}
		got, err := Load(id.Dir())
		must(t, err)
		if !got.cert.Load().Leaf.Equal(want) {
			t.Errorf("interrupted after %d steps: the wrong certificate is in place", cut)
		}
		must(t, os.RemoveAll(filepath.Join(id.Dir(), fileNextKey)))
		id = got
	}
}

func equalSecrets(a, b Secrets) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// believes verifies the host as an application with that ca.crt does.
func believes(ca []byte, id *Identity) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c := id.certificate()
	more := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		more.AddCert(cert)
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: more, DNSName: id.Node()})
	return err
}
