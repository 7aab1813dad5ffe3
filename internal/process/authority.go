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
		Allow: h.allow, Facts: h.welcome, Log: h.log,
	})
}

func (h *hostAgent) openCA(ctx context.Context) (*pki.CA, error) {
	sealed, err := h.store.Secret(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key from the store: %w", err)
	}
	return h.id.OpenCA(sealed)
}

// tokens changes the record of a token in the store by compare-and-swap: it
// stays there, marked with who used it, so that its newcomer may ask again and
// everybody else is told why not.
func (h *hostAgent) tokens(ctx context.Context, id string, change func(*pki.TokenRecord) error) error {
	err := h.store.UpdateToken(ctx, id, func(data []byte) ([]byte, error) {
		var rec pki.TokenRecord
		if err := json.Unmarshal(data, &rec); err != nil {
			return nil, fmt.Errorf("read token %s: %w", id, err)
		}
		if err := change(&rec); err != nil {
			return nil, err
		}
		return json.Marshal(rec)
	})
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
		return pki.ErrNoToken
	}
	return err
}

func (h *hostAgent) sharedSecret() (string, error) {
	if h.cfg.Join.SecretFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(h.cfg.Join.SecretFile)
	return strings.TrimSpace(string(b)), err
}

// allow refuses the name of another host of the herd: of one that answers, and
// of one that is only down, until it was removed.
func (h *hostAgent) allow(ctx context.Context, who pki.Newcomer) error {
	if who.Node == h.cfg.Node {
		return fmt.Errorf("%s is this host; choose another name (node in manada.yaml)", who.Node)
	}
	nodes, err := h.store.Nodes(ctx)
	if err != nil {
		h.log.Warn("cannot look up whether a newcomer's name is taken", "peer", who.Node, "error", err.Error())
		return &pki.JoinError{Err: pki.ErrNotNow, Detail: "the store does not answer"}
	}
	heard, ok := h.hub.Heard()[who.Node]
	up := ok && time.Since(heard.At) < 5*time.Second
	err = clash(who, nodes, up)
	named := slices.ContainsFunc(nodes, func(n store.Node) bool { return n.Name == who.Node })
	if err == nil || up || !named || !who.Shared {
		return err
	}
	return h.replace(ctx, who)
}

// replace takes out the host of a newcomer's name that is gone: it has the
// secret that all hosts share and comes without its disk. Nothing is taken out
// while it leads, while commits wait for it, or below a quorum of living voters;
// the newcomer asks again.
func (h *hostAgent) replace(ctx context.Context, who pki.Newcomer) error {
	if err := h.agent.RemoveNode(ctx, who.Node); err != nil {
		return &pki.JoinError{Err: pki.ErrNotNow, Detail: "the host of that name cannot be replaced yet: " + err.Error()}
	}
	h.log.Warn("replaced a host that lost its disk", "peer", who.Node)
	return nil
}

// clash says what is wrong with a newcomer's names beside the registered hosts;
// up says whether the host of its name answers.
func clash(who pki.Newcomer, nodes []store.Node, up bool) error {
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	err := who.Clashes(names)
	switch {
	case err == nil || !slices.Contains(names, who.Node):
		return err
	case up:
		return fmt.Errorf("%w, and it answers; choose another name (node in manada.yaml)", err)
	}
	return fmt.Errorf("%w, which is down; if it is gone for good type on a member: manada node remove %s", err, who.Node)
}

// welcome ends the removal of a host that joins anew, and tells it what the
// herd is.
func (h *hostAgent) welcome(ctx context.Context, who pki.Newcomer) (any, error) {
	if err := h.store.ReadmitNode(ctx, who.Node); err != nil {
		return nil, err
	}
	return h.herdFacts(ctx)
}

// herdFacts is what a host must know of the herd.
func (h *hostAgent) herdFacts(ctx context.Context) (any, error) {
	f := h.known()
	f.Founder = false
	peers := map[string]string{h.cfg.Node: h.cfg.Addresses().Peer}
	maps.Copy(peers, f.Peers)
	f.Peers = peers
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

// keepAuthority puts the founding host's sealed key into the store, once.
func (h *hostAgent) keepAuthority(ctx context.Context) {
	if !h.known().Founder {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for h.depositKey(ctx) != nil {
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
