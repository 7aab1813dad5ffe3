package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"manada/internal/cluster"
)

// fixed is a Source that does not change.
type fixed struct {
	st   cluster.Status
	self cluster.Beat
	why  string
}

func (f fixed) Status() cluster.Status { return f.st }
func (f fixed) Self() cluster.Beat     { return f.self }
func (f fixed) Unconfirmed() string    { return f.why }

func ptr[T any](v T) *T { return &v }

// seat is the view of one node of a herd of master (primary), slave (member of
// sync), third (not in sync, 20 MB behind) and backup (witness).
func seat(node string) fixed {
	st := cluster.Status{
		Cluster: "orders", SeenFrom: node, Health: cluster.HealthOK, Epoch: 7, Primary: "master", K: 1, Sync: []string{"slave"},
		Durability: cluster.Quorum,
		Nodes: []cluster.NodeStatus{
			{Name: "master", Role: cluster.RolePrimary, State: cluster.StateRunning, Timeline: 7, LSN: 100 << 20, SeenMS: ptr[int64](200)},
			{Name: "slave", Role: cluster.RoleStandby, State: cluster.StateStreaming, Timeline: 7, LSN: 100 << 20, LagBytes: ptr[int64](0), LagMS: ptr[int64](0), Sync: cluster.SyncMember},
			{Name: "third", Role: cluster.RoleStandby, State: cluster.StateStreaming, Timeline: 7, LSN: 99 << 20, LagBytes: ptr[int64](20 << 20), Sync: cluster.AsyncNode},
			{Name: "backup", Role: cluster.RoleWitness, State: cluster.StateRunning},
		},
		Store: &cluster.StoreStatus{Voters: 3, Up: 3},
	}
	self := cluster.Beat{Node: node, Cluster: "orders", Kind: "data", Version: "1.0.0", StoreOK: true, Timeline: 7,
		Term: &cluster.Term{SystemID: "7321", Epoch: 7}}
	row, _ := st.Node(node)
	self.WAL.LSN = row.LSN
	switch node {
	case "master":
		self.Postgres, self.Leads = cluster.PostgresPrimary, 7
	case "slave":
		self.Postgres, self.Streaming, self.Replay, self.LagMS = cluster.PostgresStandby, true, 100<<20, ptr[int64](0)
	case "third":
		self.Postgres, self.Streaming, self.Replay = cluster.PostgresStandby, true, 80<<20
	case "backup":
		self.Kind, self.Postgres, self.Timeline = "witness", cluster.PostgresNone, 0
	}
	return fixed{st: st, self: self}
}

func do(t *testing.T, h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// endpoints are all with Patroni's meaning; each case says who answers 200.
var endpoints = []struct {
	path string
	ok   string // nodes that answer 200
}{
	{"/", "master"},
	{"/primary", "master"},
	{"/primary?lag=1", "master"},
	{"/primary?tag_zone=a", "master"}, // tags do not count here
	{"/read-write", "master"},
	{"/leader", "master"},
	{"/master", "master"},
	{"/replica", "slave third"},
	{"/replica?lag=10MB", "slave"},
	{"/replica?lag=20MB", "slave third"},
	{"/replica?lag=20971519", "slave"},
	{"/replica?lag=nonsense", "slave third"},
	{"/replica?replication_state=streaming", "slave third"},
	{"/replica?replication_state=other", ""},
	{"/replica?tag_zone=a", ""},
	{"/read-only", "master slave third"},
	{"/read-only?lag=1MB", "master slave"},
	{"/sync", "slave"},
	{"/synchronous", "slave"},
	{"/quorum", "slave"},
	{"/read-only-sync", "master slave"},
	{"/read-only-quorum", "master slave"},
	{"/async", "third"},
	{"/asynchronous?lag=1MB", ""},
	{"/health", "master slave third"},
	{"/liveness", "master slave third backup"},
	{"/readiness", "master slave backup"},
	{"/readiness?lag=64MB", "master slave third backup"},
	{"/readiness?mode=write", "master slave third backup"}, // received all but exactly 1 MB
	{"/readiness?mode=write&lag=1023kB", "master slave backup"},
	{"/patroni", "master slave third backup"},
}

func TestEveryEndpointInEveryRole(t *testing.T) {
	for _, node := range []string{"master", "slave", "third", "backup"} {
		h := New(Options{Source: seat(node)}).Handler()
		for _, e := range endpoints {
			want := http.StatusServiceUnavailable
			if strings.Contains(" "+e.ok+" ", " "+node+" ") {
				want = http.StatusOK
			}
			for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
				w := do(t, h, method, e.path, "")
				if w.Code != want {
					t.Errorf("%s %s on %s: %d, want %d", method, e.path, node, w.Code, want)
				}
				if method == "OPTIONS" && w.Body.Len() != 0 {
					t.Errorf("%s %s has a body", method, e.path)
				}
			}
			if w := do(t, h, "POST", e.path, "{}"); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("POST %s: %d", e.path, w.Code)
			}
		}
	}
}

// TestStatesThatTurnLoadBalancersAway changes one thing at a time.
func TestStatesThatTurnLoadBalancersAway(t *testing.T) {
	for _, c := range []struct {
		name   string
		node   string
		change func(*fixed)
		path   string
		want   int
	}{
		{"leads an older epoch", "master", func(f *fixed) { f.self.Leads = 6 }, "/primary", 503},
		{"status no longer names it", "master", func(f *fixed) { f.st.Primary = "" }, "/primary", 503},
		{"cannot vouch for it", "master", func(f *fixed) { f.why = "nobody has confirmed epoch 7" }, "/primary", 503},
		{"cannot vouch for it", "master", func(f *fixed) { f.why = "x" }, "/leader", 503},
		{"cannot vouch for it", "master", func(f *fixed) { f.why = "x" }, "/read-write", 503},
		{"cannot vouch for it", "master", func(f *fixed) { f.why = "x" }, "/readiness", 503},
		{"cannot vouch for it", "master", func(f *fixed) { f.why = "x" }, "/health", 200},
		{"another is primary", "master", func(f *fixed) { f.st.Primary = "slave" }, "/read-only", 503},
		{"an old primary is no replica", "master", func(f *fixed) { f.st.Primary = "slave" }, "/replica", 503},
		{"postgres down", "master", func(f *fixed) { f.self.Postgres = cluster.PostgresDown }, "/primary", 503},
		{"postgres hung", "slave", func(f *fixed) { f.self.Postgres = cluster.PostgresHung }, "/health", 503},
		{"postgres starting", "slave", func(f *fixed) { f.self.Postgres = cluster.PostgresStarting }, "/replica", 503},
		{"must be rewound", "slave", func(f *fixed) { f.self.Rejoin = "rewind" }, "/replica", 503},
		{"quarantined", "slave", func(f *fixed) { f.st.Nodes[1].State = cluster.StateQuarantined }, "/read-only", 503},
		{"not in sync any more", "slave", func(f *fixed) { f.st.Nodes[1].Sync = cluster.AsyncNode }, "/sync", 503},
		{"primary unknown, no limit on lag", "slave", func(f *fixed) { f.st.Primary, f.st.Nodes[1].LagBytes = "", nil }, "/replica?lag=1", 200},
		{"primary unknown", "slave", func(f *fixed) { f.st.Primary = "" }, "/readiness", 503},
		{"does not stream", "slave", func(f *fixed) { f.self.Streaming = false }, "/readiness", 503},
		{"does not stream", "slave", func(f *fixed) { f.self.Streaming = false }, "/replica", 200},
		{"does not stream", "slave", func(f *fixed) { f.self.Streaming = false }, "/replica?replication_state=streaming", 503},
	} {
		f := seat(c.node)
		c.change(&f)
		h := New(Options{Source: f}).Handler()
		if w := do(t, h, "GET", c.path, ""); w.Code != c.want {
			t.Errorf("%s: GET %s: %d, want %d", c.name, c.path, w.Code, c.want)
		}
	}
}

func TestLiveness(t *testing.T) {
	for _, c := range []struct {
		node   string
		age    time.Duration
		paused bool
		want   int
	}{
		{"master", 29 * time.Second, false, 200}, {"master", 31 * time.Second, false, 503},
		{"slave", 59 * time.Second, false, 200}, {"slave", 61 * time.Second, false, 503},
		{"master", time.Hour, true, 200},
	} {
		f := seat(c.node)
		f.st.Paused = c.paused
		h := New(Options{Source: f, LoopAge: func() time.Duration { return c.age }}).Handler()
		if w := do(t, h, "GET", "/liveness", ""); w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}

// TestWithoutSource is a process that has no view of the herd.
func TestWithoutSource(t *testing.T) {
	var err error
	h := New(Options{Ready: func() error { return err }}).Handler()
	for range 2 {
		want := 200
		if err != nil {
			want = 503
		}
		for _, p := range []string{"/health", "/readiness"} {
			if w := do(t, h, "GET", p, ""); w.Code != want {
				t.Errorf("%s: %d, want %d", p, w.Code, want)
			}
		}
		err = errors.New("repository not reachable")
	}
	for p, want := range map[string]int{"/liveness": 200, "/metrics": 200, "/primary": 404, "/v1/status": 404} {
		if w := do(t, h, "GET", p, ""); w.Code != want {
			t.Errorf("%s: %d, want %d", p, w.Code, want)
		}
	}
}

func TestDocument(t *testing.T) {
	get := func(node string) map[string]any {
		w := do(t, New(Options{Source: seat(node)}).Handler(), "GET", "/patroni", "")
		if ct := w.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("content type %q", ct)
		}
		var m map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	want := map[string]any{
		"state": "running", "role": "replica", "timeline": 7.0, "replication_state": "streaming", "sync_standby": true,
		"database_system_identifier": "7321",
		"xlog":                       map[string]any{"received_location": 104857600.0, "replayed_location": 104857600.0},
		"patroni":                    map[string]any{"scope": "orders", "name": "slave", "version": "1.0.0"},
	}
	if d := cmp.Diff(want, get("slave")); d != "" {
		t.Error(d)
	}
	if m := get("master"); m["role"] != "primary" || m["xlog"].(map[string]any)["location"] != 104857600.0 {
		t.Errorf("master: %v", m)
	}
}

func TestStatus(t *testing.T) {
	h := New(Options{Source: seat("slave")}).Handler()
	w := do(t, h, "GET", "/v1/status", "")
	var got cluster.Status
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	if got.Primary != "master" || len(got.Nodes) != 4 || !strings.Contains(w.Body.String(), `"schema":1`) {
		t.Errorf("%s", w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("status may be cached")
	}
}

func TestReads(t *testing.T) {
	h := New(Options{
		Reads: map[string]Read{"explain": func(_ context.Context, q url.Values) (any, error) {
			if q.Get("node") == "" {
				return nil, &Error{Message: "which node?", Code: CodeUsage}
			}
			return map[string]string{"about": q.Get("node")}, nil
		}},
	}).Handler()
	if w := do(t, h, "GET", "/v1/explain?node=slave", ""); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"about":"slave"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(t, h, "GET", "/v1/explain", ""); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(t, h, "POST", "/v1/explain", "{}"); w.Code != 403 || !strings.Contains(w.Body.String(), `"code":"not_trusted"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(t, h, "GET", "/v1/nonsense", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "explain") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1048576": 1 << 20, "16kB": 16 << 10, "64MB": 64 << 20, "1GB": 1 << 30, "1.5 MB": 3 << 19, "12B": 12, "2tb": 2 << 40} {
		if got, ok := parseSize(s); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "MB", "-1", "1XB", "nan", "inf", "1e300"} {
		if got, ok := parseSize(s); ok {
			t.Errorf("%q: %d", s, got)
		}
	}
}
