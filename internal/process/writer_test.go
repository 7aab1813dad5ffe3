package process

import (
	"testing"

	"manada/internal/cluster"
	"manada/internal/keeper"
	"manada/internal/peer"
)

// TestWriterIn: who leads is what this host's own agent has read, whatever others
// say; how far its WAL goes is what the leader says while it leads.
func TestWriterIn(t *testing.T) {
	term := func(epoch uint64, leader string, tl cluster.Timeline) *cluster.Term {
		return &cluster.Term{Epoch: epoch, Leader: leader, History: []cluster.Branch{{Epoch: epoch, Leader: leader, Timeline: tl}}}
	}
	row := func(node, from string, age int64, b cluster.Beat) peer.Row {
		b.Node, b.From = node, from
		return peer.Row{Beat: b, AgeMS: age}
	}
	own := row("repo", peer.FromAgent, 100, cluster.Beat{StoreOK: true, Term: term(7, "db1", 3)})
	leads := cluster.Beat{Postgres: cluster.PostgresPrimary, Leads: 7, WAL: cluster.Position{Epoch: 7, LSN: 99}, Term: term(9, "db9", 9)}
	behind := own
	behind.StoreOK = false
	for _, c := range []struct {
		what string
		rows []peer.Row
		want keeper.Writer
		ok   bool
	}{
		{"all is well", []peer.Row{row("db1", peer.FromAgent, 0, leads), own}, keeper.Writer{Node: "db1", Timeline: 3, End: 99}, true},
		{"the leader is silent", []peer.Row{row("db1", peer.FromAgent, 4000, leads), own}, keeper.Writer{Node: "db1", Timeline: 3}, true},
		{"its guardian alone", []peer.Row{row("db1", peer.FromGuardian, 0, leads), own}, keeper.Writer{Node: "db1", Timeline: 3}, true},
		{"it leads another epoch", []peer.Row{row("db1", peer.FromAgent, 0, cluster.Beat{Postgres: cluster.PostgresPrimary, Leads: 6}), own}, keeper.Writer{Node: "db1", Timeline: 3}, true},
		{"the store is not reached", []peer.Row{row("db1", peer.FromAgent, 0, leads), behind}, keeper.Writer{}, false},
		{"nothing of its own", []peer.Row{row("db1", peer.FromAgent, 0, leads)}, keeper.Writer{}, false},
		{"nothing yet", nil, keeper.Writer{}, false},
	} {
		if w, ok := writerIn(c.rows, "repo", keeper.Writer{Node: "db1", Timeline: 2, End: 50}); w != c.want || ok != c.ok {
			t.Errorf("%s: %+v %v", c.what, w, ok)
		}
	}
	silent := []peer.Row{row("db1", peer.FromAgent, 4000, leads), own}
	if w, ok := writerIn(silent, "repo", keeper.Writer{Node: "db1", Timeline: 3, End: 50}); !ok || w.End != 50 {
		t.Errorf("a leader that was heard before: %+v %v", w, ok)
	}
}
