package peer

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/pki"
	"manada/internal/verb"
)

func TestSlowSubscriberGetsTheNewestOnly(t *testing.T) {
	var o outlet
	s := o.subscribe()
	defer s.close()
	for i := range 1000 {
		f, err := newFrame(cluster.Beat{Seq: uint64(i + 1), TermRev: 1, Term: &cluster.Term{Epoch: 1}})
		must(t, err)
		o.publish(f)
	}
	<-s.wake
	var d decoder
	b, err := d.decode(s.next())
	must(t, err)
	if b.Seq != 1000 || b.Term == nil {
		t.Errorf("got beat %d with term %v, want the last with its term", b.Seq, b.Term)
	}
	if s.next() != nil || len(s.wake) != 0 {
		t.Error("something is left in the slot")
	}
}

func TestTermTravelsWhenItChanges(t *testing.T) {
	var o outlet
	s := o.subscribe()
	defer s.close()
	var d decoder
	sizes := []int{}
	for i, rev := range []int64{5, 5, 6, 6, 0, 0} {
		f, err := newFrame(cluster.Beat{Seq: uint64(i), TermRev: rev, Term: &cluster.Term{Epoch: uint64(rev), Reason: "because"}})
		must(t, err)
		o.publish(f)
		line := s.next()
		sizes = append(sizes, len(line))
		b, err := d.decode(line)
		must(t, err)
		if b.Term == nil || b.Term.Epoch != uint64(rev) {
			t.Errorf("beat %d of revision %d arrived with term %+v", i, rev, b.Term)
		}
	}
	if !(sizes[1] < sizes[0] && sizes[2] > sizes[1] && sizes[3] < sizes[2] && sizes[5] == sizes[4]) {
		t.Errorf("sizes of lines: %v", sizes)
	}
}

func TestStalledPublisherIsNotMadeToLookAlive(t *testing.T) {
	var o outlet
	f, err := newFrame(cluster.Beat{Seq: 1})
	must(t, err)
	f.at = time.Now().Add(-staleAfter)
	o.publish(f)
	s := o.subscribe()
	defer s.close()
	if len(s.wake) != 0 || s.next() != nil {
		t.Error("a new subscriber got an old word")
	}
}

func TestStuckListenerIsCutOffAndDelaysNobody(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master")
	a.cfg.Silence = 300 * time.Millisecond
	a.serve()
	// Beats large enough to fill the socket buffers soon.
	a.beating(cluster.Beat{Reason: string(make([]byte, 60<<10))})
	stuck, err := get(t, h.id("third", pki.KindData).ClientTLS("master"), "GET", "https://"+a.addr+"/v1/beats")
	must(t, err)
	defer stuck.Body.Close()

	b := h.host("slave")
	b.SetPeers(map[string]string{"master": a.addr})
	subs := func() int { a.out.mu.Lock(); defer a.out.mu.Unlock(); return len(a.out.subs) }
	eventually(t, "both listen", func() bool { return subs() == 2 })
	var worst time.Duration
	eventually(t, "the stuck one is cut off", func() bool {
		if m := b.Heard()["master"]; !m.At.IsZero() {
			worst = max(worst, time.Since(m.At))
		}
		return subs() == 1
	})
	if worst > 2*time.Second {
		t.Errorf("another listener heard nothing for %v", worst)
	}
	if _, err := io.Copy(io.Discard, stuck.Body); err == nil {
		t.Error("the stuck stream ended as if it were complete")
	}
}

// blackHole passes a connection's bytes on until it is told to swallow them.
func blackHole(t *testing.T, target string) (addr string, swallow *atomic.Bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	swallow = &atomic.Bool{}
	done := make(chan struct{})
	pass := func(to, from net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if err != nil {
				break
			}
			if !swallow.Load() {
				to.Write(buf[:n])
			}
		}
		to.Close()
		from.Close()
	}
	go func() {
		defer close(done)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			go pass(in, out)
			go pass(out, in)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), swallow
}

func TestSilentConnectionIsNoticed(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master").serve()
	a.beating(cluster.Beat{})
	addr, swallow := blackHole(t, a.addr)
	id := h.id("slave", pki.KindData)
	cfg := testConfig(id)
	cfg.Silence = 300 * time.Millisecond
	b := NewHub(cfg)
	defer b.Close()
	b.SetPeers(map[string]string{"master": addr})
	eventually(t, "heard", func() bool { return b.Heard()["master"].Beat.Seq > 0 })
	swallow.Store(true)
	eventually(t, "noticed", func() bool { return b.Heard()["master"].Broken })
	swallow.Store(false)
	eventually(t, "heard again", func() bool { return !b.Heard()["master"].Broken })
}

func TestGuardianIsHeardBesideItsAgent(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a, b := h.host("master").serve(), h.host("slave").serve()
	stopAgent := a.beating(cluster.Beat{Postgres: cluster.PostgresPrimary})
	b.SetPeers(map[string]string{"master": a.addr})
	cfg := testConfig(a.id)
	g := NewPusher(cfg)
	g.SetPeers(map[string]string{"slave": b.addr, "master": a.addr})
	beatEvery(t, 5*time.Millisecond, func() { g.Publish(cluster.Beat{Postgres: cluster.PostgresPrimary}) })
	eventually(t, "both heard", func() bool {
		return b.Heard()["master"].Beat.From == FromAgent && b.HeardGuardian()["master"].Beat.From == FromGuardian
	})
	eventually(t, "the own guardian is heard", func() bool { return a.HeardGuardian()["master"].Beat.Seq > 0 })
	stopAgent()
	a.stop() // the agent is being upgraded
	eventually(t, "the agent is lost", func() bool { return b.Heard()["master"].Broken })
	seq := b.HeardGuardian()["master"].Beat.Seq
	eventually(t, "the guardian goes on", func() bool {
		m := b.HeardGuardian()["master"]
		return m.Beat.Seq > seq && !m.Broken
	})
	rows := b.View()
	if !slices.ContainsFunc(rows, func(r Row) bool { return r.From == FromGuardian && r.Node == "master" }) {
		t.Errorf("view without the guardian: %+v", rows)
	}
	g.Close()
	eventually(t, "the guardian is lost", func() bool { return b.HeardGuardian()["master"].Broken })
}

func TestForgottenWhenNoLongerAPeer(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a, b := h.host("master").serve(), h.host("slave")
	a.beating(cluster.Beat{})
	b.SetPeers(map[string]string{"master": a.addr})
	eventually(t, "heard", func() bool { return len(b.Heard()) == 1 })
	b.SetPeers(nil)
	eventually(t, "forgotten", func() bool { return len(b.Heard()) == 0 })
	subs := func() int { a.out.mu.Lock(); defer a.out.mu.Unlock(); return len(a.out.subs) }
	eventually(t, "the connection is closed", func() bool { return subs() == 0 })
}

func TestServerEndsWhileCallsAreUnderWay(t *testing.T) {
	h := newHerd(t, herdName, "master")
	entered := make(chan struct{})
	a := h.host("master").serve(func(s *Server) {
		s.Handle(verb.Resume, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			time.Sleep(100 * time.Millisecond) // as long as the work takes
			WriteJSON(w, "done")
		}))
	})
	a.beating(cluster.Beat{})
	got := make(chan error, 1)
	c := &Client{TLS: h.id("slave", pki.KindData).TLSFor, DialTimeout: 5 * time.Second}
	go func() {
		var out string
		err := c.Call(context.Background(), a.addr, "master", verb.Resume, nil, &out)
		if err == nil && out != "done" {
			t.Errorf("answer %q", out)
		}
		got <- err
	}()
	<-entered
	a.stop()
	if err := <-got; err != nil {
		t.Errorf("a call that was under way failed: %v", err)
	}
}
