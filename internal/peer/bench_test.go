package peer

import (
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
)

// largeBeat is a beat of a primary with four standbys after thirty epochs.
func largeBeat() cluster.Beat {
	t := &cluster.Term{SystemID: "7301234567890123456", Epoch: 30, Leader: "node-01", Open: true, K: 1, WantK: 1,
		Durability: cluster.Quorum, Since: "2026-11-23T00:00:00Z", Reason: "won with the promises of node-02 and node-03"}
	b := cluster.Beat{
		Postgres: cluster.PostgresPrimary, Timeline: 30, WAL: cluster.Position{Epoch: 30, LSN: 0x1_16B3740},
		Leads: 30, MayLead: true, StoreOK: true, Reason: "primary of epoch 30, open; 4 standbys certified", Term: t, TermRev: 812,
	}
	for i := range 30 {
		t.History = append(t.History, cluster.Branch{Epoch: uint64(i + 1), Leader: "node-01", Timeline: cluster.Timeline(i + 1),
			ForkLSN: cluster.LSN(i) << 24, Nonce: "0123456789abcdef0123456789abcdef"})
	}
	for i := range 4 {
		n := fmt.Sprintf("node-%02d", i+2)
		t.Sync = append(t.Sync, cluster.Member{Name: n, Instance: "0123456789abcdef"})
		b.Senders = append(b.Senders, cluster.Sender{Name: cluster.CertifiedName(n, 30), State: "streaming", Sync: "quorum",
			Flush: 0x1_16B3740, Replay: 0x1_16B3740, PID: 4000 + i})
	}
	return b
}

// BenchmarkPublish is what a beat costs its speaker, without listeners.
func BenchmarkPublish(b *testing.B) {
	s := newStamper(Config{Cluster: herdName, Node: "master", Kind: "data"}, FromAgent)
	beat := largeBeat()
	b.ReportAllocs()
	for b.Loop() {
		if err := s.publish(beat); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHear is what a beat costs a listener once it has decrypted it.
func BenchmarkHear(b *testing.B) {
	in := newInbox(herdName, "slave")
	src := in.stream("master")
	beat := largeBeat()
	beat.Node, beat.Cluster, beat.From, beat.Boot = "master", herdName, FromAgent, "a"
	full, err := json.Marshal(beat)
	must(b, err)
	src.line(full)
	beat.Term = nil
	slim, err := json.Marshal(beat)
	must(b, err)
	b.ReportMetric(float64(len(full)), "bytes-full")
	b.ReportMetric(float64(len(slim)), "bytes-slim")
	b.ReportAllocs()
	for b.Loop() {
		src.line(slim)
	}
}

// BenchmarkBeatEndToEnd is one beat published, sent over TLS on loopback and
// heard, and what both sides burn of a processor for ten beats a second.
func BenchmarkBeatEndToEnd(b *testing.B) {
	h := newHerd(b, herdName, "master")
	x, y := h.host("master").serve(), h.host("slave")
	beat := largeBeat()
	stop := beatEvery(b, 5*time.Millisecond, func() { x.Publish(beat) })
	y.SetPeers(map[string]string{"master": x.addr})
	eventually(b, "heard", func() bool { return y.Heard()["master"].Beat.Seq > 0 })
	stop()
	seq := x.out.current().beat.Seq
	before := cpu(b)
	b.ResetTimer()
	n := 0
	for ; n < b.N; n++ {
		must(b, x.Publish(beat))
		seq++
		for y.Heard()["master"].Beat.Seq < seq {
			time.Sleep(20 * time.Microsecond)
		}
	}
	b.StopTimer()
	perBeat := float64(cpu(b)-before) / float64(n)
	b.ReportMetric(perBeat/1000, "cpu-µs/beat")
	b.ReportMetric(perBeat*10/float64(time.Second)*100, "%cpu-per-peer")
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
