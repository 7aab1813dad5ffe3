package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"manada/internal/pki"
	"manada/internal/store"
)

func same(a, b Facts) bool {
	return a.Founder == b.Founder && slices.Equal(a.Endpoints, b.Endpoints) &&
		maps.Equal(a.Peers, b.Peers) && a.Repo == b.Repo && a.RepoNode == b.RepoNode
}

// authority takes newcomers in over the peers' port.
func (h *hostAgent) authority() *pki.Authority {
	return pki.NewAuthority(pki.AuthorityConfig{
		Identity: h.id, CA: h.openCA, Tokens: h.tokens, SharedSecret: h.sharedSecret,
		Allow: h.allow, Facts: h.newcomerFacts, Log: h.log,
	})
}

func (h *hostAgent) openCA(ctx context.Context) (*pki.CA, error) {
	sealed, err := h.store.Secret(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key from the store: %w", err)
	}
	return h.id.OpenCA(sealed)
}

// tokens lets a token be used: it is taken out of the store, which only one
// caller can do, and put back as it is after the use (a refused one unchanged,
// a used one marked, so that its newcomer may ask again).
func (h *hostAgent) tokens(ctx context.Context, id string, change func(*pki.TokenRecord) error) error {
	t, err := h.store.TakeToken(ctx, id)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExpired) {
		return pki.ErrNoToken
	}
	if err != nil {
		return err
	}
	var rec pki.TokenRecord
	if err := json.Unmarshal(t.Data, &rec); err != nil {
		return fmt.Errorf("read token %s: %w", id, err)
	}
	refused := change(&rec)
	if t.Data, err = json.Marshal(rec); err != nil {
		return fmt.Errorf("write token %s: %w", id, err)
	}
	if err := h.store.CreateToken(ctx, t); err != nil && refused == nil {
		return err
	}
	return refused
}

func (h *hostAgent) sharedSecret() (string, error) {
	if h.cfg.Join.SecretFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(h.cfg.Join.SecretFile)
	return strings.TrimSpace(string(b)), err
}

// allow refuses the name of a host that lives.
func (h *hostAgent) allow(ctx context.Context, who pki.Newcomer) error {
	if who.Node == h.cfg.Node {
		return fmt.Errorf("%s is this host", who.Node)
	}
	if heard, ok := h.hub.Heard()[who.Node]; ok && time.Since(heard.At) < 5*time.Second {
		return fmt.Errorf("a host named %s is in the herd and answers; choose another name, or stop that one", who.Node)
	}
	return nil
}

func (h *hostAgent) newcomerFacts(ctx context.Context, who pki.Newcomer) (any, error) {
	f := h.facts
	f.Founder = false
	f.Peers = maps.Clone(f.Peers)
	f.Peers[h.cfg.Node] = h.cfg.Addresses().Peer
	members, err := h.store.Members(ctx)
	if err != nil {
		return nil, err
	}
	f.Endpoints = nil
	for _, m := range members {
		f.Endpoints = append(f.Endpoints, m.ClientURLs...)
	}
	return f, nil
}

// keepAuthority puts the founding host's sealed key into the store, once, and
// renews this host's certificate in time.
func (h *hostAgent) keepAuthority(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	founded := !h.facts.Founder
	for n := 0; ; n++ {
		if !founded {
			founded = h.depositKey(ctx) == nil
		}
		if n%3600 == 0 && h.id.NeedsRenewal(time.Now()) {
			if ca, err := h.openCA(ctx); err == nil {
				if _, err := h.id.Renew(ca, time.Now()); err != nil {
					h.log.Error("cannot renew this host's certificate", "error", err.Error())
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *hostAgent) depositKey(ctx context.Context) error {
	name := h.id.Name()
	sealed, err := pki.Found(h.cfg.IdentityDir(), name.Cluster, name.Node, name.Kind, nil)
	if errors.Is(err, pki.ErrExists) {
		return nil // deposited before
	}
	if err != nil {
		h.log.Error("cannot read the authority's key", "error", err.Error())
		return err
	}
	if err := h.store.CreateSecret(ctx, sealed); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	return pki.FinishFounding(h.cfg.IdentityDir())
}
