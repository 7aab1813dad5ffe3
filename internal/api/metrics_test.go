package api

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"manada/internal/cluster"
)

func scrape(t *testing.T, o Options) string {
	t.Helper()
	w := do(t, New(o).Handler(), "GET", "/metrics", "")
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	f := seat("slave")
	f.st.Conditions = []cluster.Condition{
		{Code: "M-P04", Severity: cluster.Warning, Node: "master", Text: "for role a"},
		{Code: "M-P04", Severity: cluster.Warning, Node: "master", Text: "for role b"},
	}
	f.st.Health = cluster.HealthDegraded
	f.self.WaitingMS = 1500
	got := scrape(t, Options{Source: f,
		LastTakeover: func() (time.Duration, bool) { return 850 * time.Millisecond, true }})
	for _, want := range []string{
		`manada_info{cluster="orders",node="slave",version="1.0.0"} 1`,
		`manada_role{cluster="orders",node="slave",role="standby"} 1`,
		`manada_primary{cluster="orders",node="slave"} 0`,
		`manada_health{cluster="orders",node="slave"} 1`,
		`manada_epoch{cluster="orders",node="slave"} 7`,
		`manada_timeline{cluster="orders",node="slave"} 7`,
		`manada_wal_lsn_bytes{cluster="orders",node="slave"} 1.048576e+08`,
		`manada_replay_lsn_bytes{cluster="orders",node="slave"} 1.048576e+08`,
		`manada_lag_bytes{cluster="orders",node="slave"} 0`,
		`manada_lag_seconds{cluster="orders",node="slave"} 0`,
		`manada_sync_standbys{cluster="orders",node="slave"} 1`,
		`manada_k{cluster="orders",node="slave"} 1`,
		`manada_postgres_up{cluster="orders",node="slave"} 1`,
		`manada_store_ok{cluster="orders",node="slave"} 1`,
		`manada_store_voters_up{cluster="orders",node="slave"} 3`,
		`manada_commit_waiting_seconds{cluster="orders",node="slave"} 1.5`,
		`manada_last_takeover_seconds{cluster="orders",node="slave"} 0.85`,
		`manada_condition{about="master",cluster="orders",code="M-P04",node="slave",severity="warning"} 1`,
		`manada_node_seen_seconds{cluster="orders",node="slave",peer="master"} 0.2`,
		`go_goroutines `,
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestUnknownIsLeftOut: a 0 that means "unknown" would be believed.
func TestUnknownIsLeftOut(t *testing.T) {
	f := seat("slave")
	f.st.Epoch, f.st.Store, f.st.Nodes[1].LagBytes, f.self.LagMS = 0, nil, nil, nil
	f.self.Replay, f.self.Timeline = 0, 0
	got := scrape(t, Options{Source: f, LastTakeover: func() (time.Duration, bool) { return 0, false }})
	for _, name := range []string{"manada_epoch{", "manada_k{", "manada_lag_bytes{", "manada_lag_seconds{", "manada_store_voters{",
		"manada_replay_lsn_bytes{", "manada_timeline{", "manada_last_takeover_seconds{", "manada_backup_last"} {
		if strings.Contains(got, "\n"+name) {
			t.Errorf("%s is there", name)
		}
	}
	witness := scrape(t, Options{Source: seat("backup")})
	if strings.Contains(witness, "\nmanada_postgres_up") {
		t.Error("a witness tells of a PostgreSQL")
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, Options{Source: seat("master")}))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
