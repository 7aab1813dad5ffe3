package peer

import (
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
)

func TestHostsHearEachOther(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a, b := h.host("master").serve(), h.host("slave").serve()
	peers := map[string]string{"master": a.addr, "slave": b.addr}
	a.SetPeers(peers)
	b.SetPeers(peers)
	term := &cluster.Term{Epoch: 7, Leader: "master", Open: true}
	a.beating(cluster.Beat{Postgres: cluster.PostgresPrimary, Term: term, TermRev: 3})
	b.beating(cluster.Beat{Postgres: cluster.PostgresStandby})

	eventually(t, "slave hears master's fifth beat with its term", func() bool {
		m := b.Heard()["master"]
		return m.Beat.Seq >= 5 && m.Beat.Term != nil && m.Beat.Term.Epoch == 7 && time.Since(m.At) < time.Second
	})
	eventually(t, "master hears slave", func() bool { return a.Heard()["slave"].Beat.Postgres == cluster.PostgresStandby })
	if got := a.Heard(); len(got) != 1 {
		t.Errorf("master hears %v, want slave alone (not itself)", got)
	}
	m := b.Heard()["master"].Beat
	if m.Cluster != herdName || m.From != FromAgent || m.Kind != pki.KindData || m.Schema != 1 || m.Boot == "" {
		t.Errorf("beat was not filled in: %+v", m)
	}
	rows := b.View()
	if len(rows) != 2 || rows[0].Node != "master" || rows[1].Node != "slave" {
		t.Errorf("view of slave: %+v", rows)
	}
}

func TestReconnectsAfterServerRestart(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a, b := h.host("master").serve(), h.host("slave")
	a.beating(cluster.Beat{})
	b.SetPeers(map[string]string{"master": a.addr})
	eventually(t, "heard", func() bool { return b.Heard()["master"].Beat.Seq > 0 })

	a.stop()
	eventually(t, "told broken at once", func() bool { return b.Heard()["master"].Broken })
	before := b.Heard()["master"]
	if age := time.Since(before.At); age > defaultSilence {
		t.Errorf("broken told %v after the last beat, later than silence would show it", age)
	}
	a.serve()
	eventually(t, "heard again", func() bool {
		m := b.Heard()["master"]
		return !m.Broken && m.Beat.Seq > before.Beat.Seq
	})
}
