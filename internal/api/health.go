package api

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"manada/internal/cluster"
)

// check answers one health endpoint: true is 200, false 503.
type check func(v view, q url.Values) bool

// view is the node as one request sees it.
type view struct {
	st   cluster.Status
	self cluster.Beat
	row  cluster.NodeStatus // the node's line in st; zero if it has none
	// unconfirmed is Source.Unconfirmed, asked again whenever it counts.
	unconfirmed func() string
}

func (a *API) view() view {
	v := view{st: a.o.Source.Status(), self: a.o.Source.Self(), unconfirmed: a.o.Source.Unconfirmed}
	v.row, _ = v.st.Node(v.self.Node)
	return v
}

// primary: the record names this node, it was seen leading, and it can vouch for
// that at this moment.
func (v view) primary() bool {
	return v.st.Primary != "" && v.st.Primary == v.self.Node &&
		v.self.Postgres == cluster.PostgresPrimary && v.self.Leads == v.st.Epoch && v.unconfirmed() == ""
}

// running is Patroni's state "running": PostgreSQL answers.
func (v view) running() bool {
	return v.self.Postgres == cluster.PostgresPrimary || v.self.Postgres == cluster.PostgresStandby
}

// standby: one whose data may be read. One that must be rewound or cloned
// first holds history that no longer counts.
func (v view) standby() bool {
	return v.self.Postgres == cluster.PostgresStandby && v.self.Rejoin == "" && v.row.State != cluster.StateQuarantined
}

func (v view) replica(q url.Values) bool {
	return v.standby() && !v.lagsBeyond(q.Get("lag")) && v.inReplicationState(q.Get("replication_state"))
}

// lagsBeyond compares the known lag with a limit. As in Patroni a limit that
// cannot be read is none, and an unknown position of the primary excludes
// nobody: otherwise a failover would take the readers down too.
func (v view) lagsBeyond(limit string) bool {
	n, ok := parseSize(limit)
	return ok && v.row.LagBytes != nil && *v.row.LagBytes > n
}

func (v view) inReplicationState(want string) bool {
	switch want {
	case "":
		return true
	case "streaming":
		return v.self.Streaming
	case "in archive recovery":
		return !v.self.Streaming
	}
	return false
}

func (v view) sync() bool { return v.row.Sync == cluster.SyncMember }

// tagged says whether the host has the tags of ?tag_KEY=VALUE: it has none.
func tagged(q url.Values) bool {
	for key := range q {
		if strings.HasPrefix(key, "tag_") {
			return false
		}
	}
	return true
}

// checks are the endpoints with Patroni's names. A member of sync answers both
// /sync and /quorum: commits wait for k of them, whichever they are.
var checks = map[string]check{
	"primary":    func(v view, _ url.Values) bool { return v.primary() },
	"read-write": func(v view, _ url.Values) bool { return v.primary() },
	"leader":     func(v view, _ url.Values) bool { return v.primary() },
	"master":     func(v view, _ url.Values) bool { return v.primary() },
	"replica":    func(v view, q url.Values) bool { return v.replica(q) && tagged(q) },
	"read-only":  func(v view, q url.Values) bool { return (v.primary() || v.replica(q)) && tagged(q) },
	"sync":       syncCheck, "synchronous": syncCheck, "quorum": syncCheck,
	"read-only-sync": readOnlySync, "read-only-synchronous": readOnlySync, "read-only-quorum": readOnlySync,
	"async": asyncCheck, "asynchronous": asyncCheck,
	"health": func(v view, q url.Values) bool { return v.running() && tagged(q) },
}

func syncCheck(v view, q url.Values) bool  { return v.sync() && v.replica(q) && tagged(q) }
func asyncCheck(v view, q url.Values) bool { return !v.sync() && v.replica(q) && tagged(q) }
func readOnlySync(v view, q url.Values) bool {
	return (v.primary() || v.sync() && v.replica(q)) && tagged(q)
}

// readiness is for orchestrators: the leader, or a standby that streams and has
// caught up to within ?lag= (default 1 MB, as maximum_lag_on_failover), in
// what it replayed or, with mode=write, in what it received. A host without a
// database is ready when its agent answers.
func readiness(v view, q url.Values) bool {
	if v.self.Kind != "data" {
		return true
	}
	if v.primary() {
		return true
	}
	p, known := v.st.Node(v.st.Primary)
	if !v.standby() || !v.self.Streaming || !known || p.LSN == 0 {
		return false
	}
	limit, ok := parseSize(q.Get("lag"))
	if !ok {
		limit = 1 << 20
	}
	at := v.self.Replay
	if q.Get("mode") == "write" {
		at = v.self.WAL.LSN
	}
	return at >= p.LSN || uint64(p.LSN-at) <= uint64(limit)
}

// mountHealth serves GET, HEAD and OPTIONS alike; the latter two answer with
// the code alone.
func (a *API) mountHealth(mux *http.ServeMux) {
	mount := func(path string, h http.HandlerFunc) {
		mux.HandleFunc("GET "+path, h) // GET includes HEAD
		mux.HandleFunc("OPTIONS "+path, h)
	}
	mount("/liveness", a.liveness)
	if a.o.Source == nil {
		mount("/health", a.ready)
		mount("/readiness", a.ready)
		return
	}
	for name, c := range checks {
		mount("/"+name, a.checked(c))
	}
	mount("/readiness", a.checked(readiness))
	mount("/patroni", a.checked(func(view, url.Values) bool { return true }))
	mount("/{$}", a.checked(checks["primary"])) // as in Patroni
}

func (a *API) checked(c check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := a.view()
		doc := encode(v.document())
		code := http.StatusServiceUnavailable
		// Last of all, and only from what has an age: whatever delayed this answer,
		// a host that stood still does not say what was true before.
		if c(v, r.URL.Query()) {
			code = http.StatusOK
		}
		answer(w, r, code, doc)
	}
}

// answer writes the document for a GET and the bare code otherwise.
func answer(w http.ResponseWriter, r *http.Request, code int, doc []byte) {
	if r.Method == http.MethodGet {
		writeRaw(w, code, doc)
		return
	}
	w.WriteHeader(code)
}

// loopLimit is the age past which a primary's loop counts as stuck, twice that for
// others (Patroni's ttl).
const loopLimit = 30 * time.Second

// liveness: does the main loop turn? While the herd is paused a loop may rest.
func (a *API) liveness(w http.ResponseWriter, _ *http.Request) {
	limit := 2 * loopLimit
	if a.o.Source != nil {
		if a.o.Source.Self().Leads != 0 {
			limit = loopLimit
		}
		if a.o.Source.Status().Paused {
			limit = math.MaxInt64
		}
	}
	if a.o.LoopAge != nil && a.o.LoopAge() > limit {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	if a.o.Ready != nil {
		if err := a.o.Ready(); err != nil {
			answer(w, r, http.StatusServiceUnavailable, encode(map[string]string{"state": "not ready", "reason": err.Error()}))
			return
		}
	}
	answer(w, r, http.StatusOK, encode(map[string]string{"state": "running"}))
}

// document is Patroni's description of a node, for scripts that read more than
// the code: its keys and its words (replica).
func (v view) document() map[string]any {
	doc := map[string]any{
		"state":   patroniState(v.self.Postgres),
		"role":    "replica",
		"patroni": map[string]string{"scope": v.st.Cluster, "name": v.self.Node, "version": v.self.Version},
	}
	switch {
	case v.self.Kind != "data":
		doc["role"] = "uninitialized"
	case v.self.Postgres == cluster.PostgresPrimary:
		doc["role"] = "primary"
		doc["xlog"] = map[string]uint64{"location": uint64(v.self.WAL.LSN)}
	default:
		doc["xlog"] = map[string]uint64{"received_location": uint64(v.self.WAL.LSN), "replayed_location": uint64(v.self.Replay)}
		if v.self.Streaming {
			doc["replication_state"] = "streaming"
		}
	}
	if v.self.Timeline != 0 {
		doc["timeline"] = uint32(v.self.Timeline)
	}
	if v.self.Term != nil && v.self.Term.SystemID != "" {
		doc["database_system_identifier"] = v.self.Term.SystemID
	}
	if v.st.Paused {
		doc["pause"] = true
	}
	if v.st.Primary == "" {
		doc["cluster_unlocked"] = true
	}
	if why := v.unconfirmed(); v.self.Postgres == cluster.PostgresPrimary && why != "" {
		doc["unconfirmed"] = why
	}
	if v.sync() {
		doc["sync_standby"] = true
	}
	return doc
}

func patroniState(s cluster.PostgresState) string {
	switch s {
	case cluster.PostgresPrimary, cluster.PostgresStandby:
		return "running"
	case cluster.PostgresStarting:
		return "starting"
	case cluster.PostgresStopping:
		return "stopping"
	}
	return "stopped"
}

var units = []struct {
	name string
	size float64
}{{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30}, {"tb", 1 << 40}, {"b", 1}}

// parseSize reads a number of bytes, "1048576" or "10MB" (powers of 1024, as
// PostgreSQL and Patroni have them).
func parseSize(s string) (int64, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	unit := 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f*unit > math.MaxInt64/2 {
		return 0, false
	}
	return int64(math.Round(f * unit)), true
}
