package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"manada/internal/cluster"
)

// What a rotation makes new.
const (
	RotatePasswords    = "passwords"    // of the herd's roles
	RotateCertificates = "certificates" // of the hosts, with their keys
	RotateCA           = "ca"           // the authority, its key and the kek; certificates too
	RotateFinish       = "finish"       // the former authority is believed no more
)

// Vault is the store's record of the herd's secrets: the authority's sealed
// key, and, in a parcel for each host, the newest generation of all the rest.
// It changes by compare-and-swap only, so each generation has one maker.
type Vault struct {
	Schema     int    `json:"schema"` // 2; 1 was the sealed key alone
	Generation uint64 `json:"generation"`
	// Authority is the key that signs, sealed with the kek of this generation.
	Authority json.RawMessage `json:"authority,omitempty"`
	// Believed is the content of ca.crt; empty before the first rotation.
	Believed string `json:"believed,omitempty"`
	// Vouched: certificates carry the word of the former authority.
	Vouched bool `json:"vouched,omitempty"`
	// CertGeneration: hosts whose key is of an older one take a new key.
	CertGeneration uint64 `json:"cert_generation,omitempty"`
	// Spreading: the passwords of this generation are not PostgreSQL's yet.
	Spreading bool `json:"spreading,omitempty"`
	// Closing: the former authority is believed only until the hosts that are
	// up have certificates of the new one.
	Closing bool              `json:"closing,omitempty"`
	Parcels map[string]Parcel `json:"parcels,omitempty"` // by node
	Holds   map[string]Hold   `json:"holds,omitempty"`   // by node
	// Pending is ordered and not begun; Last is what made this generation.
	Pending *Order `json:"pending,omitempty"`
	Last    *Order `json:"last,omitempty"`
	// Exposed is the shared join secret that a removed host knows
	// (SecretPrint): nobody joins with it any more.
	Exposed []byte `json:"exposed,omitempty"`
}

// Hold is what a host has taken up, by its own word.
type Hold struct {
	Generation     uint64 `json:"generation"`
	CertGeneration uint64 `json:"cert_generation"`
	Key            []byte `json:"key"` // public, PKIX, of its certificate
	// Store is what its voter believes (TrustOf), "" where it has none.
	Store string `json:"store,omitempty"`
}

// Order asks for a rotation.
type Order struct {
	What    []string  `json:"what"`
	Removed []string  `json:"removed,omitempty"` // hosts for whose removal it is
	Exposed []byte    `json:"exposed,omitempty"` // the join secret that they know
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
	// Kept are the roles whose password was not changed, and why.
	Kept map[string]string `json:"kept,omitempty"`
}

// Wants says whether the order is for that.
func (o *Order) Wants(what string) bool { return o != nil && slices.Contains(o.What, what) }

// Recipient is a host of the herd, with the keys of its registered certificates.
type Recipient struct {
	Node, Kind string
	Keys       []string // KeyDigest
}

// Recipients are the hosts that have a certificate in the list.
func Recipients(list cluster.Registry) []Recipient {
	by := map[string]*Recipient{}
	for _, c := range list.Good {
		if by[c.Node] == nil {
			by[c.Node] = &Recipient{Node: c.Node, Kind: c.Kind}
		}
		by[c.Node].Keys = append(by[c.Node].Keys, c.Key)
	}
	out := make([]Recipient, 0, len(by))
	for _, n := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[n])
	}
	return out
}

// KeyDigest is how the list of certificates names a public key (PKIX).
func KeyDigest(key []byte) string { return digest(key) }

// ReadVault decodes the store's record.
func ReadVault(b []byte) (*Vault, error) {
	v := &Vault{}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("read the herd's secrets: %w", err)
	}
	switch v.Schema {
	case 1: // a sealed key, as founding leaves it
		return &Vault{Schema: 2, Authority: bytes.Clone(b)}, nil
	case 2:
		return v, nil
	}
	return nil, fmt.Errorf("read the herd's secrets: schema %d is not known to this version", v.Schema)
}

// Encode is the record for the store.
func (v *Vault) Encode() ([]byte, error) { return json.Marshal(v) }

// Ask adds an order; one that has not begun yet grows by it. A new authority
// while the former one is still believed is refused, but for a removal.
func (v *Vault) Ask(o Order) error {
	twice := o.Wants(RotateCA) && len(o.Removed) == 0 && v.Vouched
	switch {
	case twice:
		return fmt.Errorf("the authority before this one is still believed: give ca.crt of any host to every application, then end it with  manada secrets rotate ca --finish")
	case o.Wants(RotateFinish) && !v.Vouched && !v.Pending.Wants(RotateCA):
		return fmt.Errorf("there is no former authority to be ended")
	}
	if p := v.Pending; p != nil {
		for _, w := range p.What {
			if !o.Wants(w) {
				o.What = append(o.What, w)
			}
		}
		o.Removed = append(slices.Clone(p.Removed), o.Removed...)
		if o.Exposed == nil {
			o.Exposed = p.Exposed
		}
	}
	if o.Exposed != nil {
		v.Exposed = o.Exposed // counts at once
	}
	v.Pending = &o
	return nil
}

// Behind are those of the nodes that have not taken up all there is.
func (v *Vault) Behind(nodes []string) []string {
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool {
		h := v.Holds[n]
		return h.Generation >= v.Generation && h.CertGeneration >= v.CertGeneration
	})
}

// Without are those of the nodes that do not hold the newest generation.
func (v *Vault) Without(nodes []string) []string {
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return v.Holds[n].Generation >= v.Generation })
}

// Idle says whether nothing is between two steps: another order may begin.
func (v *Vault) Idle() bool { return !v.Spreading && !v.Closing }

// Begin makes a new generation out of the pending order: what is new, in a
// parcel for each of the hosts. id holds the generation before. keep names the
// roles whose passwords stay, with the reason.
func (v *Vault) Begin(id *Identity, to []Recipient, keep map[string]string, now time.Time) error {
	c, ca, err := v.current(id)
	if err != nil {
		return err
	}
	o := *v.Pending
	v.Generation++
	c.Held.Generation = v.Generation
	if o.Wants(RotatePasswords) {
		o.Kept = renewPasswords(&c.Held, keep)
		v.Spreading = true
	}
	believed := id.believed().cas
	if o.Wants(RotateFinish) {
		ca, believed = ca.Alone(), []*x509.Certificate{ca.Cert}
	}
	if o.Wants(RotateCA) {
		if ca, err = ca.Successor(now); err != nil {
			return err
		}
		c.KEK = make([]byte, kekSize)
		rand.Read(c.KEK) // never fails (crypto/rand)
		believed = append([]*x509.Certificate{ca.Cert}, believed...)
		v.Closing = len(o.Removed) > 0
	}
	if o.Wants(RotateCA) || o.Wants(RotateCertificates) {
		v.CertGeneration = v.Generation
	}
	if v.Authority, err = SealCAKey(c.KEK, ca); err != nil {
		return err
	}
	v.Believed, v.Vouched = string(pemOf(believed)), len(ca.chain) > 0
	v.Parcels, v.Pending, v.Last = map[string]Parcel{}, nil, &o
	v.forget(to)
	return v.pack(c, to)
}

// Choose makes a generation in which a role has a password that people chose.
func (v *Vault) Choose(id *Identity, to []Recipient, role, password string) error {
	c, _, err := v.current(id)
	if err != nil {
		return err
	}
	v.Generation++
	c.Held.Generation = v.Generation
	for _, s := range []Secrets{c.Held.Passwords, c.Held.Next} {
		if s != nil {
			s[role] = password
		}
	}
	if !slices.Contains(c.Held.Chosen, role) {
		c.Held.Chosen = append(c.Held.Chosen, role)
	}
	if v.Last != nil && v.Last.Kept[role] != "" {
		last := *v.Last
		last.Kept = maps.Clone(last.Kept)
		delete(last.Kept, role) // nobody else knows this one
		v.Last = &last
	}
	v.Parcels = map[string]Parcel{}
	return v.pack(c, to)
}

// current is what the newest generation holds, as this host has taken it up.
func (v *Vault) current(id *Identity) (contents, *CA, error) {
	held, err := ReadHeld(id.dir)
	if err != nil {
		return contents{}, nil, err
	}
	if held.Generation != v.Generation {
		return contents{}, nil, fmt.Errorf("this host holds generation %d of the herd's secrets, not %d", held.Generation, v.Generation)
	}
	kek, err := id.KEK()
	if err != nil {
		return contents{}, nil, err
	}
	ca, err := OpenCAKey(kek, v.Authority)
	held.CertGeneration = 0 // each host's own affair
	return contents{Held: held, KEK: kek}, ca, err
}

// renewPasswords makes new ones for the herd's roles, but for those to keep
// and those that people chose; it returns these with the reason.
func renewPasswords(h *Held, keep map[string]string) map[string]string {
	kept := maps.Clone(keep)
	if kept == nil {
		kept = map[string]string{}
	}
	for _, role := range h.Chosen {
		if _, told := kept[role]; !told {
			kept[role] = "it was chosen by people"
		}
	}
	h.Next = maps.Clone(h.Passwords)
	for _, role := range secretRoles() {
		if _, stays := kept[role]; !stays {
			h.Next[role] = NewPassword()
		}
	}
	return kept
}

// forget drops what is kept of hosts that are not of the herd any more.
func (v *Vault) forget(to []Recipient) {
	maps.DeleteFunc(v.Holds, func(n string, _ Hold) bool {
		return !slices.ContainsFunc(to, func(r Recipient) bool { return r.Node == n })
	})
}

// Lacks says whether a host has no parcel that it could open: it joined or took
// a new key after this generation was made.
func (v *Vault) Lacks(to []Recipient) bool { return len(v.lacking(to)) > 0 }

func (v *Vault) lacking(to []Recipient) []Recipient {
	return slices.DeleteFunc(slices.Clone(to), func(r Recipient) bool {
		pub, err := v.keyOf(r)
		if err != nil || v.Holds[r.Node].Generation >= v.Generation {
			return true
		}
		hash, err := KeyHash(pub)
		return err != nil || bytes.Equal(v.Parcels[r.Node].To, hash)
	})
}

// Resupply packs the parcels that are lacking and says whether there were any.
func (v *Vault) Resupply(id *Identity, to []Recipient) (bool, error) {
	lack := v.lacking(to)
	if len(lack) == 0 {
		return false, nil
	}
	c, _, err := v.current(id)
	if err != nil {
		return false, err
	}
	return true, v.pack(c, lack)
}

// keyOf is the key for which a host's parcel is sealed: the one it told of, if
// that is one of its registered ones.
func (v *Vault) keyOf(r Recipient) (*ecdsa.PublicKey, error) {
	key := v.Holds[r.Node].Key
	if !slices.Contains(r.Keys, KeyDigest(key)) {
		return nil, fmt.Errorf("%s has not told of a registered key yet", r.Node)
	}
	return publicKey(key)
}

// Note keeps what a host says that it holds, and says whether that is news. A
// request that was sent again later changes nothing back.
func (v *Vault) Note(b RefreshBody) bool {
	old := v.Holds[b.Node]
	if b.Generation > v.Generation || b.Generation < old.Generation || b.CertGeneration < old.CertGeneration {
		return false
	}
	h := Hold{Generation: b.Generation, CertGeneration: b.CertGeneration, Key: b.Key, Store: b.Store}
	if bytes.Equal(h.Key, old.Key) && h.Generation == old.Generation && h.CertGeneration == old.CertGeneration && h.Store == old.Store {
		return false
	}
	if v.Holds == nil {
		v.Holds = map[string]Hold{}
	}
	v.Holds[b.Node] = h
	return true
}

// Voters are those whose voter still believes something else: it reads ca.crt
// when it starts, which it does by itself.
func (v *Vault) Voters() []string {
	var late []string
	for _, n := range slices.Sorted(maps.Keys(v.Holds)) {
		if h := v.Holds[n]; h.Store != "" && v.Believed != "" && h.Store != v.Trust() {
			late = append(late, n)
		}
	}
	return late
}

// Trust names what hosts are to believe (TrustOf).
func (v *Vault) Trust() string { return TrustOf([]byte(v.Believed)) }

// TrustOf names the content of a ca.crt.
func TrustOf(ca []byte) string { return digest(ca)[:16] }

func (v *Vault) pack(c contents, to []Recipient) error {
	if v.Parcels == nil {
		v.Parcels = map[string]Parcel{}
	}
	for _, r := range to {
		pub, err := v.keyOf(r)
		if err != nil {
			continue // it has not been heard of since the first rotation; Resupply
		}
		one := contents{Held: c.Held.For(r.Kind)}
		if (Name{Kind: r.Kind}).Member() {
			one.KEK = c.KEK
		}
		if v.Parcels[r.Node], err = sealTo(pub, parcelName(r.Node, v.Generation), one); err != nil {
			return err
		}
	}
	return nil
}

func parcelName(node string, generation uint64) string {
	return fmt.Sprintf("the secrets of %s, generation %d", node, generation)
}

func publicKey(der []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("want an ECDSA key, got %T", k)
	}
	return pub, nil
}

// Closed ends the trust in all authorities but the one that signs.
func (v *Vault) Closed() error {
	cas, err := parseCerts([]byte(v.Believed))
	if err != nil {
		return err
	}
	v.Believed, v.Closing = string(pemOf(cas[:1])), false
	return nil
}

// For is the vault as one host may have it: its own parcel, and the sealed key
// for those who hold the kek.
func (v *Vault) For(node, kind string) *Vault {
	one := *v
	one.Holds, one.Pending, one.Last, one.Exposed = nil, nil, nil, nil
	one.Parcels = map[string]Parcel{}
	if p, ok := v.Parcels[node]; ok {
		one.Parcels[node] = p
	}
	if !(Name{Kind: kind}).Member() {
		one.Authority = nil
	}
	return &one
}
