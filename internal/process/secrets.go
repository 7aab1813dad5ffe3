package process

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/durable"
	"manada/internal/health"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/postgres"
	"manada/internal/rotate"
	"manada/internal/verb"
)

func passwordsOf(s pki.Secrets) postgres.Passwords {
	return postgres.Passwords{
		Superuser: s[cluster.RoleSuperuser], Replication: s[cluster.RoleReplication],
		Rewind: s[cluster.RoleRewind], Monitor: s[cluster.RoleMonitor], Proxy: s[cluster.RoleProxy],
	}
}

// database is this host's PostgreSQL as package rotate sees it.
type database struct{ *postgres.Instance }

func (d database) Use(now, others pki.Secrets) error {
	return d.SetPasswords(passwordsOf(now), passwordsOf(others))
}

// keeper keeps this host's secrets and, while it leads, makes new ones.
func (h *hostAgent) keeper() *rotate.Keeper {
	cfg := rotate.Config{
		Identity: h.id, Store: h.store, Log: h.log, Event: h.agent.Event,
		Leads:      func() bool { return h.db != nil && h.agent.Status().Primary == h.cfg.Node },
		Up:         h.up,
		Peers:      func() map[string]string { return h.known().Peers },
		StoreTrust: func() string { return storeTrust(h.cfg) },
	}
	if h.db != nil {
		cfg.Database = database{h.db}
	}
	return rotate.New(cfg)
}

// up are the hosts that are heard, this one among them.
func (h *hostAgent) up() []string {
	names := []string{h.cfg.Node}
	for n, b := range h.hub.Heard() {
		if time.Since(b.At) < 3*time.Second {
			names = append(names, n)
		}
	}
	return names
}

// getSecrets answers GET /v1/secrets: how far the newest secrets have come.
func (h *hostAgent) getSecrets(w http.ResponseWriter, r *http.Request) {
	s, ok := h.secrets.Fresh(r.Context())
	if !ok {
		peer.WriteError(w, peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "manada status", "%s has not read the store yet", h.cfg.Node))
		return
	}
	peer.WriteJSON(w, s)
}

// secretConditions are what is to be told of the herd's secrets: by the leader,
// what is about the herd.
func (h *hostAgent) secretConditions() []cluster.Condition {
	s, ok := h.secrets.State()
	if !ok {
		return nil
	}
	var cs []cluster.Condition
	if s.Exposed && h.exposed.Load() {
		cs = append(cs, health.Say(health.SecretExposed, h.cfg.Node))
	}
	if !h.secrets.Leads() {
		return cs
	}
	if len(s.Behind) > 0 && s.Last != nil {
		cs = append(cs, health.Say(health.SecretsBehind, "", "what", strings.Join(s.Last.What, ", "), "hosts", strings.Join(s.Behind, ", ")))
	}
	if why := s.Last; why != nil && len(why.Removed) > 0 && why.Kept[cluster.RoleSuperuser] != "" {
		cs = append(cs, health.Say(health.PasswordKnown, "", "hosts", strings.Join(why.Removed, ", "), "role", cluster.RoleSuperuser))
	}
	if s.Former {
		cs = append(cs, health.Say(health.FormerAuthority, ""))
	}
	return cs
}

// joinSecretExposed says whether this host still has the shared secret that a
// removed host knows.
func (h *hostAgent) joinSecretExposed() bool {
	v := h.secrets.Vault()
	if v == nil || len(v.Exposed) == 0 {
		return false
	}
	secret, err := h.sharedSecret()
	return err == nil && secret != "" && bytes.Equal(pki.SecretPrint(secret, h.cfg.Cluster), v.Exposed)
}

// watchJoinSecret looks now and then whether the join secret of this host is one
// that a removed host knows. Comparing takes a good part of a second.
func (h *hostAgent) watchJoinSecret(ctx context.Context) {
	every(ctx, 2*time.Second, func() { h.exposed.Store(h.joinSecretExposed()) })
}

// RotateVerb is the body of POST /v1/secrets/rotate.
type RotateVerb struct {
	What []string `json:"what"` // pki.RotatePasswords and so on
	By   string   `json:"by,omitempty"`
}

func (h *hostAgent) postRotate(w http.ResponseWriter, r *http.Request) {
	var q RotateVerb
	if !peer.Take(w, r, &q) {
		return
	}
	known := []string{pki.RotatePasswords, pki.RotateCertificates, pki.RotateCA, pki.RotateFinish}
	if len(q.What) == 0 || slices.ContainsFunc(q.What, func(s string) bool { return !slices.Contains(known, s) }) {
		peer.WriteError(w, peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, "manada secrets rotate --help", "rotate %s: want some of %s", strings.Join(q.What, ", "), strings.Join(known, ", ")))
		return
	}
	if err := h.secrets.Order(r.Context(), pki.Order{What: q.What, By: q.By, At: time.Now().UTC()}); err != nil {
		peer.WriteError(w, err)
		return
	}
	h.getSecrets(w, r)
}

// removed makes all that a removed host held worthless: what it could still do
// with it, beside the certificates that the list took back with the host itself.
func (h *hostAgent) removed(ctx context.Context, node string) error {
	if err := h.store.DropTokens(ctx); err != nil {
		return err
	}
	o := pki.Order{What: []string{pki.RotatePasswords, pki.RotateCA}, Removed: []string{node}, At: time.Now().UTC()}
	secret, err := h.sharedSecret()
	if err != nil {
		h.log.Warn("cannot read the join secret that a removed host may know", "peer", node, "error", err.Error())
	} else if secret != "" {
		o.Exposed = pki.SecretPrint(secret, h.cfg.Cluster)
	}
	return h.secrets.Order(ctx, o)
}

// SuperuserVerb is the body of POST /v1/secrets/superuser.
type SuperuserVerb struct {
	Password string `json:"password"`
}

// postSuperuser takes the superuser's password that somebody has changed by
// hand. PostgreSQL is asked whether it is that.
func (h *hostAgent) postSuperuser(w http.ResponseWriter, r *http.Request) {
	var q SuperuserVerb
	if !peer.Take(w, r, &q) {
		return
	}
	err := h.onPrimary(r.Context(), verb.Superuser, q, nil, func() error {
		is, err := h.db.HasPassword(r.Context(), cluster.RoleSuperuser, q.Password)
		if err != nil {
			return err
		}
		if !is {
			return peer.Refuse(http.StatusConflict, "other_password", "change it in psql first (\\password postgres), then give the same one",
				"PostgreSQL on %s has another password for %s", h.cfg.Node, cluster.RoleSuperuser)
		}
		return h.secrets.Choose(r.Context(), cluster.RoleSuperuser, q.Password)
	})
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	peer.WriteJSON(w, map[string]string{"result": "taken"})
}

// keepProxySecrets takes new secrets up on a host that has no agent.
func keepProxySecrets(ctx context.Context, c *config.Config, id *pki.Identity, log *slog.Logger) {
	if c.HasAgent() {
		return // this host's agent does
	}
	rotate.New(rotate.Config{Identity: id, Log: log, Peers: func() map[string]string {
		f, err := ReadFacts(c)
		if err != nil {
			return nil
		}
		return f.Peers
	}}).Run(ctx)
}

// lookupPasswords are those of manada_proxy that may be right, read anew each
// time: the host's agent, or this process, takes new ones up.
func lookupPasswords(id *pki.Identity, log *slog.Logger) func() []string {
	return func() []string {
		held, err := pki.ReadHeld(id.Dir())
		if err != nil {
			log.Error("cannot read the proxy's password", "error", err.Error())
		}
		return held.Candidates(cluster.RoleProxy)
	}
}

// trustFile says which authorities this host's voter believes: it reads them
// when it starts.
func trustFile(c *config.Config) string { return filepath.Join(c.StateDir(), "store-trust") }

func storeTrust(c *config.Config) string {
	if !c.Has(config.Store) {
		return ""
	}
	b, err := os.ReadFile(trustFile(c))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// noteTrust keeps what the voter is about to believe, and returns it.
func noteTrust(c *config.Config, id *pki.Identity) (string, error) {
	b, err := os.ReadFile(id.StoreFiles().CA)
	if err != nil {
		return "", err
	}
	if err := durable.MkdirAll(c.StateDir(), 0o700); err != nil {
		return "", err
	}
	trust := pki.TrustOf(b)
	return trust, durable.Write(trustFile(c), []byte(trust+"\n"), durable.Options{})
}
