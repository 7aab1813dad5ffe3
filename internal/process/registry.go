package process

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

const (
	registryEvery = time.Second
	// registryAgain bounds how often strangers can make this host ask the store.
	registryAgain = 200 * time.Millisecond
	// registryAlone is how long the store is silent before other members are
	// asked for the list.
	registryAlone = 3 * time.Second
	maxFound      = 100
)

// certificates keeps this host's copy of the herd's list of certificates, which
// all its processes read, as the store has it.
type certificates struct {
	mu    sync.Mutex // one question at a time
	asked time.Time
	good  time.Time // when the store, or another member, last answered
	said  string

	seen  sync.Mutex // guards found
	found map[string]cluster.Certificate
}

// admit refuses callers whose certificate is not in the herd's list. A newcomer
// is never among them: before anybody is refused the store is asked whether it
// has just been registered.
func (h *hostAgent) admit(ctx context.Context) func(*x509.Certificate) error {
	known := h.id.Registry()
	return func(c *x509.Certificate) error {
		if known.Admit(c) != nil {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			h.askRegistry(ctx, registryAgain)
		}
		if err := known.Admit(c); err != nil {
			return err
		}
		if known.Unknown(c) {
			h.certs.note(c)
		}
		return nil
	}
}

// note remembers a certificate that an open list does not have yet.
func (k *certificates) note(c *x509.Certificate) {
	found, err := pki.CertificateOf(c)
	if err != nil {
		return
	}
	found.Own = false
	k.seen.Lock()
	defer k.seen.Unlock()
	if k.found == nil {
		k.found = map[string]cluster.Certificate{}
	}
	if len(k.found) < maxFound {
		k.found[found.Fingerprint] = found
	}
}

func (k *certificates) noted() []cluster.Certificate {
	k.seen.Lock()
	defer k.seen.Unlock()
	out := slices.Collect(maps.Values(k.found))
	clear(k.found)
	return out
}

// keepRegistry asks the store for the list every second.
func (h *hostAgent) keepRegistry(ctx context.Context) {
	h.certs.good = time.Now()
	every(ctx, registryEvery, func() { h.askRegistry(ctx, registryEvery/2) })
}

// askRegistry brings this host's list up to date unless that was tried within
// the last while; without the store, the list stays as it is, unless another
// member knows a newer one.
func (h *hostAgent) askRegistry(ctx context.Context, within time.Duration) {
	k := &h.certs
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.asked) < within {
		return
	}
	list, err := h.store.Registry(ctx)
	if err == nil && (list.Rev == 0 || list.Open) {
		list, err = h.openRegistry(ctx)
	}
	if err != nil && time.Since(k.good) > registryAlone {
		list, err = askMembers(ctx, h.id, h.known().Peers, func(l cluster.Registry) bool { return l.Rev >= h.id.Registry().List().Rev })
	}
	if err == nil {
		k.good = time.Now()
		err = h.id.Registry().Set(list)
	}
	if err == nil {
		err = h.ownRegistered(list)
	}
	k.asked = time.Now()
	h.sayRegistry(err)
}

// sayRegistry logs what is wrong, once.
func (h *hostAgent) sayRegistry(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != h.certs.said && text != "" {
		h.log.Warn("the list of the herd's certificates", "error", text)
	}
	h.certs.said = text
}

// ownRegistered is an error when the herd would let this host in nowhere.
func (h *hostAgent) ownRegistered(list cluster.Registry) error {
	own, err := pki.CertificateOf(h.id.Certificate())
	if err != nil || list.Open {
		return err
	}
	if _, ok := list.Find(own.Fingerprint); !ok {
		return errors.New("this host's own certificate is not in it: it was removed from the herd, or away for too long; to bring it back remove its data_dir and join anew: manada node token, manada join")
	}
	return nil
}

// openRegistry adds to a list that is open, or not there yet, what this host
// knows: its own certificate, those that it has seen, and that the list may be
// closed.
func (h *hostAgent) openRegistry(ctx context.Context) (cluster.Registry, error) {
	found := h.certs.noted()
	nodes, err := h.store.Nodes(ctx)
	if err != nil {
		return cluster.Registry{}, err
	}
	var members []string
	for _, n := range nodes {
		if n.Kind != pki.KindProxy {
			members = append(members, n.Name)
		}
	}
	var unchanged cluster.Registry
	same := errors.New("nothing to change")
	list, err := h.store.UpdateRegistry(ctx, func(r *cluster.Registry) error {
		changed, err := h.amend(ctx, r, found, members)
		if err == nil && !changed {
			unchanged = *r
			return same
		}
		return err
	})
	if errors.Is(err, same) {
		return unchanged, nil
	}
	return list, err
}

// amend changes an open list and says whether it did. The names of removed
// hosts are read after the list: one that is readmitted is in it only after its
// name is free.
func (h *hostAgent) amend(ctx context.Context, r *cluster.Registry, found []cluster.Certificate, members []string) (changed bool, err error) {
	changed = h.begin(r)
	if !r.Open {
		return changed, nil
	}
	removed, err := h.store.RemovedNodes(ctx)
	if err != nil {
		return false, err
	}
	own, err := pki.CertificateOf(h.id.Certificate())
	if err != nil {
		return false, err
	}
	now := time.Now()
	if have, ok := r.Find(own.Fingerprint); (!ok || !have.Own) && r.Register(own, now) == nil {
		changed = true
	}
	for _, c := range found {
		if !r.Has(c.Node) && r.Register(c, now) == nil {
			changed = true
		}
	}
	if r.Refuse(func(c cluster.Certificate) bool { return slices.Contains(removed, c.Node) }) > 0 {
		changed = true
	}
	return r.Close(members, now) || changed, nil
}

// begin makes a list where there is none: this host's own where it has one
// (the founder's, or a store that was lost), else an open one.
func (h *hostAgent) begin(r *cluster.Registry) bool {
	if r.Rev != 0 {
		return false
	}
	*r = h.id.Registry().List()
	return true
}

// register writes a certificate that is about to be handed out into the list.
func (h *hostAgent) register(ctx context.Context, c cluster.Certificate) (cluster.Registry, error) {
	list, err := h.store.UpdateRegistry(ctx, func(r *cluster.Registry) error {
		h.begin(r)
		return r.Register(c, time.Now())
	})
	if err != nil {
		return list, err
	}
	return list, h.id.Registry().Set(list)
}

// getRegistry answers GET /v1/registry, for hosts that cannot ask the store.
func (h *hostAgent) getRegistry(w http.ResponseWriter, _ *http.Request) {
	peer.WriteJSON(w, h.id.Registry().List())
}

// askMembers asks one member after the other for the list until one gives a
// list that will do.
func askMembers(ctx context.Context, id *pki.Identity, peers map[string]string, will func(cluster.Registry) bool) (cluster.Registry, error) {
	err := errors.New("no member of the herd is known")
	cl := peer.Client{TLS: id.TLSFor, DialTimeout: time.Second}
	for _, node := range slices.Sorted(maps.Keys(peers)) {
		var list cluster.Registry
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		asked := cl.Call(one, peers[node], node, verb.Registry, nil, &list)
		cancel()
		if asked == nil && list.Rev > 0 && will(list) {
			return list, nil
		}
		if asked != nil {
			err = asked
		}
	}
	return cluster.Registry{}, err
}

// keepProxyRegistry keeps the list on a host that has no agent.
func keepProxyRegistry(ctx context.Context, c *config.Config, id *pki.Identity) {
	if c.HasAgent() {
		return // this host's agent does
	}
	every(ctx, 2*time.Second, func() {
		if f, err := ReadFacts(c); err == nil {
			list, err := askMembers(ctx, id, f.Peers, func(cluster.Registry) bool { return true })
			if err == nil {
				_ = id.Registry().Set(list) // else the last one goes on, and it is tried again
			}
		}
	})
}
