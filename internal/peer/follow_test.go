package peer

import (
	"context"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
)

func TestFollowFindsTheHerdFromOneAddress(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a, b := h.host("master").serve(), h.host("slave").serve()
	peers := map[string]string{"master": a.addr, "slave": b.addr}
	a.SetPeers(peers)
	b.SetPeers(peers)
	stopA := a.beating(cluster.Beat{Postgres: cluster.PostgresPrimary, Term: &cluster.Term{Epoch: 1, Leader: "master"}, TermRev: 1})
	stopB := b.beating(cluster.Beat{Postgres: cluster.PostgresStandby})

	cfg := testConfig(h.id("pooler", pki.KindProxy))
	f := Follow(cfg, []string{"127.0.0.1:1", b.addr}) // one dead address, and not the primary's
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, f.Wait(ctx))
	eventually(t, "both are heard directly", func() bool { return f.well() && len(f.Heard()) == 2 })
	if term, rev := f.Term(); term == nil || term.Leader != "master" || rev != 1 {
		t.Errorf("term %+v, revision %d", term, rev)
	}

	stopA()
	a.stop()
	eventually(t, "the primary's end is told", func() bool { return f.Heard()["master"].Broken })
	stopB()
	b.beating(cluster.Beat{Postgres: cluster.PostgresPrimary, Term: &cluster.Term{Epoch: 2, Leader: "slave"}, TermRev: 2})
	eventually(t, "the new term arrives", func() bool {
		term, rev := f.Term()
		return rev == 2 && term.Leader == "slave"
	})
	if rows := f.View(); len(rows) != 2 || !rows[0].Broken || rows[0].Node != "master" {
		t.Errorf("view: %+v", rows)
	}
}

func TestFollowHearsOfNodesItDoesNotReach(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a, b := h.host("master").serve(), h.host("slave").serve()
	b.SetPeers(map[string]string{"master": a.addr})
	// The address that the primary gives is one that the follower cannot reach.
	real := a.addr
	a.addr = "127.0.0.1:1"
	a.beating(cluster.Beat{Postgres: cluster.PostgresPrimary})
	a.addr = real
	b.beating(cluster.Beat{})
	f := Follow(testConfig(h.id("pooler", pki.KindProxy)), []string{b.addr})
	defer f.Close()
	eventually(t, "heard of", func() bool { return f.Heard()["master"].Beat.Postgres == cluster.PostgresPrimary })
	seq := f.Heard()["master"].Beat.Seq
	eventually(t, "and again", func() bool { return f.Heard()["master"].Beat.Seq > seq })
}

// A herd that is being made: the host through which the follower came in was
// alone when it was asked. It is asked again soon, for it may die at once.
func TestFollowIsNotContentWithOneNode(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master").serve()
	a.SetPeers(map[string]string{"master": a.addr})
	a.beating(cluster.Beat{Postgres: cluster.PostgresPrimary})
	f := Follow(testConfig(h.id("pooler", pki.KindProxy)), []string{a.addr})
	defer f.Close()
	eventually(t, "the only node is heard directly", func() bool { return !f.in.direct()["master"].IsZero() })
	if f.well() {
		t.Error("the follower knows of one node and is content")
	}
	b := h.host("slave").serve()
	b.beating(cluster.Beat{Postgres: cluster.PostgresStandby})
	a.SetPeers(map[string]string{"master": a.addr, "slave": b.addr})
	eventually(t, "the second is heard, and all is well", func() bool { return len(f.Heard()) == 2 && f.well() })
}

func TestFollowSaysWhyNobodyAnswers(t *testing.T) {
	h := newHerd(t, herdName, "master")
	other := newHerd(t, herdName, "slave").host("slave").serve()
	f := Follow(testConfig(h.ids["master"]), []string{"127.0.0.1:1", other.addr})
	defer f.Close()
	eventually(t, "both addresses were tried", func() bool { return strings.Count(errText(f.Err()), "call GET") == 2 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := f.Wait(ctx)
	if s := errText(err); !strings.Contains(s, "refused") || !strings.Contains(s, "not of this herd") {
		t.Errorf("got %v", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
