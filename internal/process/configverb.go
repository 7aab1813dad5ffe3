package process

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/store"
)

// ConfigChange is what POST /v1/config takes: a parameter of every database of
// the herd, or its end.
type ConfigChange struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	Unset bool   `json:"unset,omitempty"`
	By    string `json:"by,omitempty"`
}

// ConfigChanged is the answer.
type ConfigChanged struct {
	Text string `json:"text"`
	// Restart: it takes effect when PostgreSQL is started again.
	Restart bool `json:"restart"`
}

// Parameter is one that PostgreSQL runs with on a host. From is "cluster",
// "node" (the host's own file), "default" (Manada's) or "manada" (owned).
type Parameter struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"`
}

// getConfig tells with what this host's PostgreSQL is configured.
func (h *hostAgent) getConfig(w http.ResponseWriter, _ *http.Request) {
	if h.refusedHere(w) {
		return
	}
	node := map[string]bool{}
	for n := range h.cfg.PostgreSQL.Parameters {
		node[strings.ToLower(n)] = true
	}
	out := []Parameter{}
	for _, s := range h.db.Rendered() {
		p := Parameter{s.Name, s.Value, s.From}
		if p.From == "user" {
			p.From = "cluster"
			if node[strings.ToLower(s.Name)] {
				p.From = "node"
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Parameter) int { return strings.Compare(a.Name, b.Name) })
	peer.WriteJSON(w, out)
}

// refusedHere answers for a host without a database.
func (h *hostAgent) refusedHere(w http.ResponseWriter) bool {
	if h.db == nil {
		peer.WriteError(w, peer.Refuse(http.StatusConflict, "no_database", "manada status lists the nodes", "%s has no database", h.cfg.Node))
	}
	return h.db == nil
}

// postConfig changes a parameter of the cluster. PostgreSQL is asked first
// whether it takes the value: one that it refuses would keep every node from
// starting.
func (h *hostAgent) postConfig(w http.ResponseWriter, r *http.Request) {
	if h.refusedHere(w) {
		return
	}
	var q ConfigChange
	err := peer.ReadJSON(r, &q)
	if err == nil {
		q.Name = strings.ToLower(q.Name)
		err = h.checkChange(r.Context(), q)
	}
	if err == nil {
		err = h.changeConfig(r.Context(), q)
	}
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	a := ConfigChanged{Text: q.Name + " = " + q.Value + " for the cluster", Restart: h.db.NeedsRestart(r.Context(), q.Name)}
	if q.Unset {
		a.Text = q.Name + " is no longer set for the cluster"
	}
	text := a.Text
	if q.By != "" {
		text += ", by " + q.By
	}
	h.agent.Event("config_changed", text)
	peer.WriteJSON(w, a)
}

func (h *hostAgent) checkChange(ctx context.Context, q ConfigChange) error {
	bad := func(hint, format string, args ...any) error {
		return peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, hint, format, args...)
	}
	if q.Unset {
		return nil
	}
	for _, p := range config.CheckParameter(q.Name, q.Value) {
		hint := "docs/configuration.md lists the parameters that cannot be set"
		if p.Want != "" {
			hint = "wanted: " + p.Want
		}
		return bad(hint, "%s %s", q.Name, p.What)
	}
	if err := h.db.CheckValue(ctx, q.Name, q.Value); err != nil {
		return bad("nothing was changed", "PostgreSQL refuses it: %v", err)
	}
	return nil
}

// changeConfig swaps the herd's configuration; of two that change it at once
// neither loses.
func (h *hostAgent) changeConfig(ctx context.Context, q ConfigChange) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		raw, rev, err := h.store.Config(ctx)
		if err != nil {
			return storeAway(err)
		}
		s, err := readShared(raw)
		if err != nil {
			return err
		}
		if _, set := s.Parameters[q.Name]; q.Unset && !set {
			return peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, "manada config show  says where a value comes from", "%s is not set for the cluster", q.Name)
		}
		delete(s.Parameters, q.Name)
		if !q.Unset {
			s.Parameters[q.Name] = q.Value
		}
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = h.store.PutConfig(ctx, rev, b)
		if errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return storeAway(err)
		}
		return nil
	}
}

func storeAway(err error) error {
	code := peer.CodeUnavailable
	if errors.Is(err, store.ErrUnknown) {
		code = peer.CodeUnknown
	}
	return peer.Refuse(http.StatusServiceUnavailable, code, "manada status: a majority of the store's voters must be up", "the store does not take the change: %v", err)
}
