package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"manada/internal/cluster"
)

// metricsHandler serves a registry of its own: nothing that a library puts
// into the global one gets out by accident.
func metricsHandler(o Options) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Source != nil {
		reg.MustRegister(&collector{o})
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// collector reads the Source at the moment of the scrape.
type collector struct{ o Options }

// desc names a metric; every one carries the herd and the node.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("manada_"+name, help, append([]string{"cluster", "node"}, labels...), nil)
}

var (
	mInfo       = desc("info", "Always 1; the version of the binary is a label.", "version")
	mRole       = desc("role", "1 for the role the node has.", "role")
	mPrimary    = desc("primary", "1 if the node is the primary of the current, open epoch, lets writes through, and can vouch for it. At most one node says 1.")
	mHealth     = desc("health", "Health of the herd as this node sees it: 0 ok, 1 degraded, 2 down.")
	mEpoch      = desc("epoch", "Epoch of the newest term record known.")
	mTimeline   = desc("timeline", "PostgreSQL's timeline.")
	mWAL        = desc("wal_lsn_bytes", "Position at which the node's WAL ends.")
	mReplay     = desc("replay_lsn_bytes", "Position up to which a standby has replayed.")
	mLagBytes   = desc("lag_bytes", "How far a standby's replay is behind the primary's WAL.")
	mLag        = desc("lag_seconds", "Age of the last commit replayed while a standby is behind, else 0.")
	mStreaming  = desc("streaming", "1 if a standby receives WAL.")
	mSync       = desc("sync_standbys", "Members of sync in the term record.")
	mK          = desc("k", "How many members of sync a commit waits for; 0: commits are on the primary alone.")
	mPostgres   = desc("postgres_up", "1 if PostgreSQL answers.")
	mStore      = desc("store_ok", "1 if the node reaches a quorum of the store.")
	mVoters     = desc("store_voters", "Voters of the store.")
	mVotersUp   = desc("store_voters_up", "Voters of the store that answer.")
	mWaiting    = desc("commit_waiting_seconds", "Age of the oldest commit that waits for a standby.")
	mTakeover   = desc("last_takeover_seconds", "How long the last takeover took that this node won.")
	mPaused     = desc("paused", "1 while automatic failover is paused.")
	mCondition  = desc("condition", "1 for each condition of the herd; see docs/reference-conditions.md.", "code", "severity", "about")
	mSeen       = desc("node_seen_seconds", "Age of the newest beat of a node.", "peer")
	mBackupStop = desc("backup_last_stop_timestamp_seconds", "When the newest backup was completed, as far as is known.")
	mSegments   = desc("archive_waiting_segments", "Complete WAL segments not yet archived.")
	mTested     = desc("restore_tested_timestamp_seconds", "When a restore test last passed.")
	all         = []*prometheus.Desc{mInfo, mRole, mPrimary, mHealth, mEpoch, mTimeline, mWAL, mReplay, mLagBytes, mLag, mStreaming, mSync, mK,
		mPostgres, mStore, mVoters, mVotersUp, mWaiting, mTakeover, mPaused, mCondition, mSeen, mBackupStop, mSegments, mTested}
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What is unknown is left out: a 0
// would be a lie that alerts believe.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st, self := c.o.Source.Status(), c.o.Source.Self()
	row, _ := st.Node(self.Node)
	put := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{st.Cluster, self.Node}, labels...)...)
	}
	put(mInfo, 1, self.Version)
	if row.Role != "" {
		put(mRole, 1, string(row.Role))
	}
	put(mPrimary, flag(view{st: st, self: self, unconfirmed: c.o.Source.Unconfirmed}.primary()))
	put(mHealth, healthNumber(st.Health))
	put(mPaused, flag(st.Paused))
	put(mStore, flag(self.StoreOK))
	if st.Epoch != 0 {
		put(mEpoch, float64(st.Epoch))
		put(mSync, float64(len(st.Sync)))
		put(mK, float64(st.K))
	}
	if self.Kind == "data" {
		c.collectPostgres(put, self, row)
	}
	if c.o.LastTakeover != nil {
		if d, ok := c.o.LastTakeover(); ok {
			put(mTakeover, d.Seconds())
		}
	}
	collectHerd(put, st)
}

type putFunc func(d *prometheus.Desc, v float64, labels ...string)

func (c *collector) collectPostgres(put putFunc, self cluster.Beat, row cluster.NodeStatus) {
	put(mPostgres, flag(view{self: self}.running()))
	put(mWaiting, float64(self.WaitingMS)/1000)
	if self.Timeline != 0 {
		put(mTimeline, float64(self.Timeline))
	}
	if self.WAL.LSN != 0 {
		put(mWAL, float64(self.WAL.LSN))
	}
	if self.Postgres != cluster.PostgresStandby {
		return
	}
	put(mStreaming, flag(self.Streaming))
	if self.Replay != 0 {
		put(mReplay, float64(self.Replay))
	}
	if row.LagBytes != nil {
		put(mLagBytes, float64(*row.LagBytes))
	}
	if self.LagMS != nil {
		put(mLag, float64(*self.LagMS)/1000)
	}
}

func collectHerd(put putFunc, st cluster.Status) {
	type key struct{ code, severity, node string }
	said := map[key]bool{}
	for _, c := range st.Conditions { // two sentences of one code about one node are one series
		if k := (key{c.Code, string(c.Severity), c.Node}); !said[k] {
			said[k] = true
			put(mCondition, 1, k.code, k.severity, k.node)
		}
	}
	for _, n := range st.Nodes {
		if n.SeenMS != nil {
			put(mSeen, float64(*n.SeenMS)/1000, n.Name)
		}
	}
	if st.Store != nil {
		put(mVoters, float64(st.Store.Voters))
		if st.Store.UnknownSince == nil {
			put(mVotersUp, float64(st.Store.Up))
		}
	}
	if b := st.Backup; b != nil {
		if b.Last != nil {
			put(mBackupStop, float64(b.Last.Stop.Unix()))
		}
		if b.WaitingSegments != nil {
			put(mSegments, float64(*b.WaitingSegments))
		}
		if b.RestoreTested != nil {
			put(mTested, float64(b.RestoreTested.Unix()))
		}
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func healthNumber(h cluster.Health) float64 {
	switch h {
	case cluster.HealthOK:
		return 0
	case cluster.HealthDegraded:
		return 1
	}
	return 2
}
