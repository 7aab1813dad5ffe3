package loop

import (
	"testing"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/wire"
)

// What the clients of a label do is counted, whichever loops they are on.
func TestStats(t *testing.T) {
	g, _ := start(t, 2)
	query := wire.AppendMessage(nil, wire.TypeQuery, []byte("select 1\x00"))
	answer := wire.AppendMessage(wire.AppendMessage(nil, wire.TypeComplete, []byte("SELECT 1\x00")), wire.TypeReady, []byte{'I'})
	const slow, n = 20 * time.Millisecond, 3
	for _, label := range []int{2, 2, 0} {
		ours, client := pair(t)
		up, server := pair(t)
		g.Serve(Arrival{Socket: take(t, ours), Label: label, Conv: conv.New(&conv.Config{}), Owner: newOwner(),
			Main: &Server{Socket: take(t, up), Link: conv.NewLink("db1", 7, nil, 'I')}})
		for range n {
			client.Write(query)
			expect(t, server, query)
			time.Sleep(slow)
			server.Write(answer)
			expect(t, client, answer)
		}
	}
	all := g.Stats()
	if len(all) != 3 || all[1] != (Stats{}) {
		t.Fatalf("%+v", all)
	}
	for label, clients := range map[int]int64{0: 1, 2: 2} {
		s := all[label]
		times := clients * n
		if s.Logins != clients || s.Assignments != clients || s.Queries != times || s.Transactions != times ||
			s.Received != times*int64(len(query)) || s.Sent != times*int64(len(answer)) {
			t.Errorf("label %d: %+v", label, s)
		}
		for _, h := range []Histogram{s.Query, s.Transaction} {
			if h.Total() != times || h.Sum < time.Duration(times)*slow || h.Sum > time.Duration(times)*100*slow {
				t.Errorf("label %d: %+v", label, h)
			}
		}
	}
}

// A duration is in the first bucket whose bound is above it.
func TestHistogram(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-1, 0, FirstBound - 1} {
		h.observe(d)
	}
	h.observe(FirstBound)
	h.observe(4*FirstBound - 1)
	h.observe(time.Hour)
	if h.Counts[0] != 3 || h.Counts[1] != 1 || h.Counts[2] != 1 || h.Counts[Buckets-1] != 1 || h.Total() != 6 {
		t.Errorf("%v", h.Counts)
	}
}
