package rotate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

// maxRequest bounds a request, in bytes.
const maxRequest = 16 << 10

// exchange asks for what this host lacks: itself, where it has the store, else
// another host.
func (k *Keeper) exchange(ctx context.Context, certificate bool) (*pki.Refreshed, error) {
	q, err := k.cfg.Identity.NewRefresh(certificate, k.cfg.StoreTrust())
	if err != nil {
		return nil, err
	}
	if k.cfg.Store != nil {
		a, err := k.answer(ctx, q)
		if err == nil {
			return a, nil
		}
		k.mu.Lock()
		silent := time.Since(k.heard) > alone
		k.mu.Unlock()
		if !silent {
			return nil, err
		}
	}
	return k.askFor(ctx, q)
}

// ask asks another host for the vault.
func (k *Keeper) ask(ctx context.Context) (*pki.Vault, error) {
	q, err := k.cfg.Identity.NewRefresh(false, k.cfg.StoreTrust())
	if err != nil {
		return nil, err
	}
	a, err := k.askFor(ctx, q)
	if err != nil {
		return nil, err
	}
	return a.Vault, nil
}

func (k *Keeper) askFor(ctx context.Context, q pki.Refresh) (*pki.Refreshed, error) {
	err := errors.New("no other host is known")
	peers := k.cfg.Peers()
	cl := peer.Client{TLS: k.cfg.Identity.UnnamedTLS, DialTimeout: 2 * time.Second}
	for _, node := range slices.Sorted(maps.Keys(peers)) {
		if node == k.cfg.Identity.Node() {
			continue
		}
		var a pki.Refreshed
		one, cancel := context.WithTimeout(ctx, 4*time.Second)
		asked := cl.Call(one, peers[node], node, verb.Refresh, q, &a)
		cancel()
		if asked == nil && a.Vault != nil {
			return &a, nil
		}
		err = errors.Join(asked)
	}
	return nil, fmt.Errorf("ask the other hosts for the herd's secrets: %w", err)
}

// ServeHTTP answers another host. It needs no client certificate: the request
// is signed with the key of a registered one.
func (k *Keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	var q pki.Refresh
	if !peer.Take(w, r, &q) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	a, err := k.answer(ctx, q)
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	peer.WriteJSON(w, a)
}

// errUnknownHost is one text for everybody who does not prove himself.
var errUnknownHost = peer.Refuse(http.StatusForbidden, peer.CodeForbidden,
	"to bring a host back remove its data_dir and join anew: manada node token, manada join",
	"the request is not signed by the key of a certificate that is registered with the herd")

// answer gives a host what the vault has for it, notes what it holds, and signs
// a certificate if it asks for one.
func (k *Keeper) answer(ctx context.Context, q pki.Refresh) (*pki.Refreshed, error) {
	b, key, err := q.Open()
	if err != nil {
		return nil, errUnknownHost
	}
	own, ok := find(k.cfg.Identity.Registry().List(), b.Node, key)
	if !ok {
		return nil, errUnknownHost
	}
	var out *pki.Refreshed
	v, err := k.noteHold(ctx, b)
	if err != nil {
		return nil, err
	}
	out = &pki.Refreshed{Vault: v.For(own.Node, own.Kind)}
	if len(b.CSR) > 0 {
		cert, err := k.sign(ctx, b, own)
		if err != nil {
			return nil, err
		}
		out.Cert = string(cert)
		return out, nil
	}
	return out, k.takeBack(ctx, b, key, v)
}

func find(list cluster.Registry, node, key string) (cluster.Certificate, bool) {
	i := slices.IndexFunc(list.Good, func(c cluster.Certificate) bool { return c.Node == node && c.Key == key })
	if i < 0 {
		return cluster.Certificate{}, false
	}
	return list.Good[i], true
}

// noteHold writes what a host holds into the vault, if that is news.
func (k *Keeper) noteHold(ctx context.Context, b pki.RefreshBody) (*pki.Vault, error) {
	v, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if !v.Note(b) {
		return v, nil
	}
	err = k.update(ctx, func(now *pki.Vault) error {
		now.Note(b)
		v = now
		return nil
	})
	return v, err
}

// update changes the vault by compare-and-swap; change may be called again.
func (k *Keeper) update(ctx context.Context, change func(*pki.Vault) error) error {
	return k.cfg.Store.UpdateSecret(ctx, func(old []byte) ([]byte, error) {
		v, err := pki.ReadVault(old)
		if err != nil {
			return nil, err
		}
		if err := change(v); err != nil {
			return nil, err
		}
		return v.Encode()
	})
}

// sign signs for the key in the request, under the name and the hosts of the
// certificate that the host has, and registers it.
func (k *Keeper) sign(ctx context.Context, b pki.RefreshBody, own cluster.Certificate) ([]byte, error) {
	id := k.cfg.Identity
	held, err := pki.ReadHeld(id.Dir())
	if err != nil {
		return nil, err
	}
	v, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if held.Generation != v.Generation {
		return nil, peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "", "%s does not hold the newest secrets itself yet", id.Node())
	}
	ca, err := id.OpenCA(v.Authority)
	if err != nil {
		return nil, err
	}
	cert, err := ca.Sign(b.CSR, pki.Name{Cluster: id.Cluster(), Node: own.Node, Kind: own.Kind}, own.Hosts, time.Now())
	if err != nil {
		return nil, err
	}
	c, err := pki.Registered(cert)
	if err != nil {
		return nil, err
	}
	list, err := k.cfg.Store.UpdateRegistry(ctx, func(r *cluster.Registry) error { return r.Register(c, time.Now()) })
	if err != nil {
		return nil, err
	}
	return cert, id.Registry().Set(list)
}

// takeBack takes a host's certificates of other keys back once it uses the one
// that was asked of it.
func (k *Keeper) takeBack(ctx context.Context, b pki.RefreshBody, key string, v *pki.Vault) error {
	list := k.cfg.Identity.Registry().List()
	if v.CertGeneration == 0 || b.CertGeneration != v.CertGeneration || !list.Other(b.Node, key) {
		return nil
	}
	list, err := k.cfg.Store.UpdateRegistry(ctx, func(r *cluster.Registry) error {
		r.Refuse(func(c cluster.Certificate) bool { return c.Node == b.Node && c.Key != key })
		return nil
	})
	if err != nil {
		return err
	}
	k.cfg.Log.Info("took back the former certificate of a host", "peer", b.Node)
	return k.cfg.Identity.Registry().Set(list)
}
