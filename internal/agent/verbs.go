package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/store"
	"manada/internal/verb"
)

// RequestVerb asks for a role change: POST /v1/switchover, /v1/failover, /v1/reinit.
type RequestVerb struct {
	To             string `json:"to,omitempty"`
	AcceptDataLoss bool   `json:"accept_data_loss,omitempty"`
	OldPrimaryOff  bool   `json:"old_primary_is_off,omitempty"`
	Force          bool   `json:"force,omitempty"` // a failover from a primary that is well
	By             string `json:"by,omitempty"`
}

// Ticket is the answer: the request's id, to be asked for at /v1/request/{id}.
type Ticket struct {
	ID string `json:"id"`
	To string `json:"to"`
}

// Mount adds the verbs to the ports of this host.
func (a *Agent) Mount(s *peer.Server) {
	on := func(v verb.Verb, h http.HandlerFunc) { s.Handle(v, h) }
	on(verb.Status, func(w http.ResponseWriter, _ *http.Request) { peer.WriteJSON(w, a.Status()) })
	on(verb.Switchover, a.asks(store.RequestSwitchover))
	on(verb.Failover, a.asks(store.RequestFailover))
	on(verb.Reinit, a.asks(store.RequestReinit))
	on(verb.Restore, a.serveRestore)
	on(verb.Undo, a.serveUndo)
	on(verb.Request, a.serveRequestResult)
	on(verb.Pause, a.servePause)
	on(verb.Resume, a.serveResume)
	on(verb.History, a.serveHistory)
	on(verb.Token, a.serveToken)
	on(verb.Remove, a.serveRemove)
	on(verb.Drain, a.serveDrain)
	on(verb.ArchivePush, a.servePush)
	on(verb.ArchiveGet, a.serveGet)
	a.mu.Lock()
	a.listening = s.Proxies
	a.mu.Unlock()
}

// asks files a request in the store; whoever can do it, does.
func (a *Agent) asks(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q RequestVerb
		if !peer.Take(w, r, &q) {
			return
		}
		if err := a.notRestoring(); err != nil {
			peer.WriteError(w, err)
			return
		}
		st := a.Status()
		if q.To == "" && kind != store.RequestReinit {
			q.To = bestSuccessor(st)
		}
		if err := checkRequest(st, kind, q, a.cfg.Spec.SuspectAfter); err != nil {
			peer.WriteError(w, err)
			return
		}
		req := newRequest(kind, q.To, q.By)
		if q.AcceptDataLoss {
			req.Options["accept_data_loss"] = "true"
		}
		if q.OldPrimaryOff {
			req.Options["old_primary_is_off"] = "true"
		}
		a.ticket(w, r, req)
	}
}

func newRequest(kind, to, by string) store.Request {
	id := make([]byte, 6)
	_, _ = rand.Read(id)
	return store.Request{ID: hex.EncodeToString(id), Kind: kind, To: to, By: by, At: time.Now().UTC(), Options: map[string]string{}}
}

// file writes a request into the store. Its id makes that safe to try again,
// for instance over an election of the store.
func (a *Agent) file(ctx context.Context, q store.Request) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	for {
		err := a.store.CreateRequest(ctx, q)
		if err == nil || errors.Is(err, store.ErrExists) {
			return nil
		}
		if !errors.Is(err, store.ErrUnknown) && !errors.Is(err, store.ErrUnreachable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// storeDown refuses what needs the store while it does not answer. Why that is so
// in detail is in the log: a chain of time-outs tells nobody anything.
func (a *Agent) storeDown(err error) error {
	if !errors.Is(err, context.Canceled) { // whoever asked has its answer from another host
		a.log.Warn("the store did not do what was asked for", "error", err.Error())
	}
	return peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, storeHint, "the store does not answer %s: %s", a.cfg.Node, storeWhy(err))
}

// storeDoubt is storeDown for a change that may have been made all the same.
func (a *Agent) storeDoubt(err error) error {
	if !errors.Is(err, store.ErrUnknown) {
		return a.storeDown(err)
	}
	a.log.Warn("the store gave no answer to a change", "error", err.Error())
	return peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnknown, storeHint+"; until then the change may still be made",
		"the store did not answer %s whether it took the request: %s", a.cfg.Node, storeWhy(err))
}

const storeHint = "look at  manada status : a majority of the store's voters must be up"

func storeWhy(err error) string {
	switch {
	case errors.Is(err, store.ErrUnreachable):
		return "none of its voters can be reached"
	case errors.Is(err, store.ErrUnknown):
		return "no majority of its voters answers"
	}
	return err.Error()
}

// bestSuccessor is a synchronous standby that streams, else any standby; of
// several one that would also lead by itself, with the highest priority.
func bestSuccessor(st cluster.Status) string {
	best, rank := "", -1
	for _, n := range st.Nodes {
		if n.Role != cluster.RoleStandby || neverLeads(n) {
			continue
		}
		r := 0
		if n.Priority != nil {
			r = *n.Priority
		}
		if n.Failover != "manual" {
			r += 1 << 30
		}
		if n.Sync == cluster.SyncMember && n.State == cluster.StateStreaming {
			r += 1 << 31
		}
		if r > rank {
			best, rank = n.Name, r
		}
	}
	return best
}

// neverLeads: priority 0 never leads.
func neverLeads(n cluster.NodeStatus) bool { return n.Priority != nil && *n.Priority == 0 }

// checkRequest refuses at once what makes no sense now; fresh is how recent a beat
// shows that its node is there.
func checkRequest(st cluster.Status, kind string, q RequestVerb, fresh time.Duration) error {
	bad := func(code, hint, format string, args ...any) error {
		return peer.Refuse(http.StatusConflict, code, hint, format, args...)
	}
	if q.To == "" {
		return bad("no_candidate", "manada status", "no node is there that could lead")
	}
	var to *cluster.NodeStatus
	for i := range st.Nodes {
		if st.Nodes[i].Name == q.To {
			to = &st.Nodes[i]
		}
	}
	switch {
	case to == nil:
		return bad("unknown_node", "manada status lists the nodes", "there is no node %s in this herd", q.To)
	case to.Role != cluster.RoleStandby && to.Role != cluster.RolePrimary:
		return bad("no_database", "manada status lists the nodes; a standby can lead", "%s has no database", q.To)
	case kind == store.RequestReinit && st.Primary == q.To:
		return bad("is_primary", "manada switchover first", "%s is the primary", q.To)
	case kind == store.RequestReinit:
		return nil
	case neverLeads(*to):
		return bad("never_leads", "another priority than 0 in its file, and a restart of its agent, change that", "%s has priority 0: it never leads", q.To)
	case st.Primary == q.To:
		return bad("already_primary", "nothing to do; manada status shows it", "%s is already the primary", q.To)
	case kind == store.RequestFailover && !q.Force && wellLed(st, fresh):
		return bad("primary_is_well", "manada switchover "+q.To+"  hands over in order;  manada failover "+q.To+" --force  fails over all the same",
			"%s is well: there is nothing to fail over from", st.Primary)
	case kind == store.RequestSwitchover && st.Primary == "":
		return bad("no_primary", "manada failover "+q.To, "there is no primary to switch over from")
	case kind == store.RequestSwitchover && to.Sync != cluster.SyncMember:
		return bad("not_synchronous", "wait until `manada status` shows it as sync", "%s is not a synchronous standby now: switching to it could lose commits", q.To)
	}
	return nil
}

// wellLed says whether a primary was just heard that lets writes through.
func wellLed(st cluster.Status, fresh time.Duration) bool {
	n, ok := st.Node(st.Primary)
	return ok && n.State == cluster.StateRunning && n.SeenMS != nil && time.Duration(*n.SeenMS)*time.Millisecond < fresh
}

func (a *Agent) serveRequestResult(w http.ResponseWriter, r *http.Request) {
	s, err := a.store.Read(r.Context())
	if err != nil {
		peer.WriteError(w, a.storeDown(err))
		return
	}
	for _, q := range s.Requests {
		if q.ID == r.PathValue("id") {
			peer.WriteJSON(w, q)
			return
		}
	}
	peer.WriteError(w, peer.Refuse(http.StatusNotFound, peer.CodeNotFound, "", "no request %s", r.PathValue("id")))
}

func (a *Agent) servePause(w http.ResponseWriter, r *http.Request) {
	var p store.Pause
	if !peer.Take(w, r, &p) {
		return
	}
	p.At = time.Now().UTC()
	a.setPause(w, r, &p, "paused", "no automatic role change until `manada resume`")
}

func (a *Agent) serveResume(w http.ResponseWriter, r *http.Request) {
	a.setPause(w, r, nil, "resumed", "automatic role changes are on again")
}

func (a *Agent) setPause(w http.ResponseWriter, r *http.Request, p *store.Pause, kind, text string) {
	if err := a.store.SetPause(r.Context(), p); err != nil {
		peer.WriteError(w, a.storeDoubt(err))
		return
	}
	a.event(kind, 0, text)
	peer.WriteJSON(w, map[string]string{"result": text})
}

func (a *Agent) serveHistory(w http.ResponseWriter, r *http.Request) {
	events, err := a.store.Events(r.Context(), 0, 200)
	if err != nil {
		peer.WriteError(w, a.storeDown(err))
		return
	}
	peer.WriteJSON(w, events)
}

// TokenVerb is the body of POST /v1/token: what may join with the token; empty
// fields leave it open.
type TokenVerb struct {
	Node string `json:"node,omitempty"`
	Kind string `json:"kind,omitempty"` // "data", "witness" or "proxy"
}

// serveToken makes a join token: one use, one hour.
func (a *Agent) serveToken(w http.ResponseWriter, r *http.Request) {
	var q TokenVerb
	if !peer.Take(w, r, &q) {
		return
	}
	text, rec := pki.NewToken(time.Now())
	if err := rec.Narrow(q.Node, q.Kind); err != nil {
		peer.WriteError(w, peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, "manada node token --help", "%v", err))
		return
	}
	data, err := json.Marshal(rec)
	if err == nil {
		err = a.store.CreateToken(r.Context(), store.Token{ID: rec.ID, Data: data, Expires: rec.Expires})
	}
	if err != nil {
		peer.WriteError(w, a.storeDown(err))
		return
	}
	peer.WriteJSON(w, map[string]string{"token": text})
}

// serveRemove takes a host that is gone for good out of the herd.
func (a *Agent) serveRemove(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Node  string `json:"node"`
		Force bool   `json:"force"`
	}
	if !peer.Take(w, r, &q) {
		return
	}
	if err := a.RemoveNode(r.Context(), q.Node, q.Force); err != nil {
		peer.WriteError(w, err)
		return
	}
	if a.parts.Removed != nil {
		if err := a.parts.Removed(r.Context(), q.Node); err != nil {
			peer.WriteError(w, peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "type:  manada secrets rotate all",
				"%s is removed and its certificates open nothing, but new secrets could not be ordered, so it still knows passwords: %v", q.Node, err))
			return
		}
	}
	peer.WriteJSON(w, map[string]string{"result": q.Node + " is removed"})
}

// RemoveNode takes a host out of the herd, with its vote and its certificates,
// unless it answers, leads, or commits wait for it. With force it may answer:
// who stole its identity can do so, too. A host that only bears a certificate,
// as a proxy does, may answer.
func (a *Agent) RemoveNode(ctx context.Context, node string, force bool) error {
	refuse := func(code, hint, format string, args ...any) error {
		return peer.Refuse(http.StatusConflict, code, hint, format, args...)
	}
	st := a.Status()
	for _, n := range st.Nodes {
		if n.Name == node && n.SeenMS != nil && *n.SeenMS < 3000 && !force {
			return refuse("is_up", "stop manada on "+node+" first; if it is not in your hands any more: manada node remove "+node+" --force", "%s answers: only a host that is gone is removed", node)
		}
	}
	nodes, err := a.store.Nodes(ctx)
	if err != nil {
		return a.storeDown(err)
	}
	list, err := a.store.Registry(ctx)
	if err != nil {
		return a.storeDown(err)
	}
	known := list.Has(node)
	for _, n := range nodes {
		known = known || n.Name == node
	}
	switch {
	case !known:
		return refuse("unknown_node", "manada status lists the nodes", "there is no node %s", node)
	case st.Primary == node:
		return refuse("is_primary", "manada switchover first", "%s is the primary", node)
	}
	for _, m := range st.Sync {
		if m == node {
			return refuse("in_sync", "wait until `manada status` no longer shows it as sync", "commits still wait for %s", node)
		}
	}
	if a.parts.RemoveVoter != nil {
		if err := a.parts.RemoveVoter(ctx, node); err != nil && !errors.Is(err, store.ErrNotFound) {
			return refuse("voter", "manada status", "cannot take away the vote of %s: %v", node, err)
		}
	}
	if err := a.store.RemoveNode(ctx, node); err != nil {
		return a.storeDoubt(err)
	}
	a.event("node_removed", 0, node+" was removed from the herd")
	return nil
}
