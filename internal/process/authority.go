package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
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
		Allow: h.allow, Register: h.register, Facts: h.welcome, Log: h.log,
	})
}

func (h *hostAgent) openCA(ctx context.Context) (*pki.CA, error) { return h.secrets.OpenCA(ctx) }

// tokens changes the record of a token in the store by compare-and-swap: it
// stays there, marked with who used it, so that its newcomer may ask again and
// everybody else is told why not.
func (h *hostAgent) tokens(ctx context.Context, id string, change func(*pki.TokenRecord) error) error {
	there := false
	err := h.store.UpdateToken(ctx, id, func(data []byte) ([]byte, error) {
		there = true
		var rec pki.TokenRecord
		if err := json.Unmarshal(data, &rec); err != nil {
			return nil, fmt.Errorf("read token %s: %w", id, err)
		}
		if err := change(&rec); err != nil {
			return nil, err
		}
		return json.Marshal(rec)
	})
	// What change does not find is another matter: the authority's key is in the store a
	// moment after it answers for the first time.
	if !there && (errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid)) {
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

// allow refuses the name, or an address, of another host of the herd: of one
// that answers, and of one that is only down, until it was removed.
func (h *hostAgent) allow(ctx context.Context, who pki.Newcomer) error {
	if who.Node == h.cfg.Node {
		return fmt.Errorf("%s is this host; choose another name (node in manada.yaml)", who.Node)
	}
	if who.Shared && h.joinSecretExposed() {
		return pki.ErrorOf(pki.ErrSecretExposed)
	}
	nodes, err := h.store.Nodes(ctx)
	if err != nil {
		h.log.Warn("cannot look up whether a newcomer's name is taken", "peer", who.Node, "error", err.Error())
		return &pki.JoinError{Err: pki.ErrNotNow, Detail: "the store does not answer"}
	}
	list, err := h.store.Registry(ctx)
	if err != nil {
		h.log.Warn("cannot look up whether a newcomer's address is taken", "peer", who.Node, "error", err.Error())
		return &pki.JoinError{Err: pki.ErrNotNow, Detail: "the store does not answer"}
	}
	heard, ok := h.hub.Heard()[who.Node]
	up := ok && time.Since(heard.At) < 5*time.Second
	named := slices.ContainsFunc(nodes, func(n store.Node) bool { return n.Name == who.Node }) || list.Other(who.Node, who.Key)
	if err := taken(who, nodes, list); err != nil {
		return err
	}
	if named && who.Shared && !up {
		return h.replace(ctx, who)
	}
	if !named {
		return nil
	}
	return sameName(who.Node, up)
}

// replace takes out the host of a newcomer's name that is gone: it has the
// secret that all hosts share and comes without its disk. Nothing is taken out
// while it leads, while commits wait for it, or below a quorum of living voters;
// the newcomer asks again.
func (h *hostAgent) replace(ctx context.Context, who pki.Newcomer) error {
	if err := h.agent.RemoveNode(ctx, who.Node, false); err != nil {
		return &pki.JoinError{Err: pki.ErrNotNow, Detail: "the host of that name cannot be replaced yet: " + err.Error()}
	}
	h.log.Warn("replaced a host that lost its disk", "peer", who.Node)
	return nil
}

// taken refuses names and addresses that another host of the herd has, by its
// registration or by its certificate.
func taken(who pki.Newcomer, nodes []store.Node, list cluster.Registry) error {
	hosts := slices.Clone(who.Hosts)
	for _, n := range nodes {
		if n.Name == who.Node {
			continue
		}
		theirs := []string{n.Name}
		for _, addr := range []string{n.Addrs.Peer, n.Addrs.SQL, n.Addrs.Repo} {
			if host, _, err := net.SplitHostPort(addr); err == nil {
				theirs = append(theirs, host)
			}
		}
		list.Good = append(slices.Clip(list.Good), cluster.Certificate{Node: n.Name, Hosts: theirs})
	}
	h, owner, ok := list.Owner(who.Node, append(hosts, who.Node))
	if !ok {
		return nil
	}
	return fmt.Errorf("%s is a name or an address of %s; give this host its own (node, advertise and listen in manada.yaml); if %s is gone for good type on a member: manada node remove %s", h, owner, owner, owner)
}

// sameName refuses the name of a host of the herd; up says whether that answers.
func sameName(node string, up bool) error {
	if up {
		return fmt.Errorf("the herd has a host named %s already, and it answers; choose another name (node in manada.yaml)", node)
	}
	return fmt.Errorf("the herd has a host named %s already, which is down; if it is gone for good type on a member: manada node remove %s", node, node)
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
	if _, err := h.openRegistry(ctx); err != nil {
		return err
	}
	if err := h.store.CreateSecret(ctx, sealed); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	return pki.FinishFounding(h.cfg.IdentityDir())
}
