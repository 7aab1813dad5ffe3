package soak

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/test/herdtest"
)

var (
	switchovers = flag.Int("switchovers", 1, "how many")
	crashes     = flag.Int("crashes", 1, "how often the primary's postmaster is killed")
	clients     = flag.Int("clients", 70, "how many connections")
	rate        = flag.Int("rate", 300, "transactions a second, all together")
	longest     = flag.Duration("longest", 0, "some explicit transactions last so long, some a tenth of it")
	// Without pools a session ends with its server. With them it does not.
	live = flag.Bool("live", false, "sessions outlive their servers: see unpromised")
	hold = flag.Duration("hold", 0, "how long a switchover may hold everybody up; 0: any time")
)

// TestSoak: see doc.go.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a herd")
	}
	events := order(*switchovers, *crashes)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+time.Duration(len(events))*(time.Minute+*longest))
	defer cancel()
	h, err := herdtest.StartTree(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Remove)
	if _, err := h.WaitSync(ctx); err != nil {
		t.Fatal(err)
	}
	prepare(ctx, t, h)
	l := newLedger()
	stop := work(ctx, h, l)
	defer stop()
	var holds []time.Duration
	for i, event := range events {
		before := l.seen()
		held, err := happen(ctx, h, l, event)
		if err != nil {
			t.Fatalf("event %d, %s: %v\n%s", i+1, event, err, l)
		}
		if event == "switchover" {
			holds = append(holds, held)
		}
		t.Logf("%d of %d, %s: longest without an acknowledgement %s", i+1, len(events), event, held.Round(time.Millisecond))
		if *live {
			for _, e := range unpromised(event, before, l.seen()) {
				t.Errorf("event %d, %s: %s", i+1, event, e)
			}
		}
	}
	stop()
	check(ctx, t, h, l)
	report(t, l, holds)
}

// check asks both nodes for what the clients were told.
func check(ctx context.Context, t *testing.T, h *herdtest.Herd, l *ledger) {
	t.Helper()
	for _, node := range []string{"master", "slave"} {
		if err := h.WaitCaughtUp(ctx, node); err != nil {
			t.Fatal(err)
		}
		if err := l.check(ctx, h.NodeDSN(node)); err != nil {
			t.Fatal(err)
		}
	}
}

// order mixes the events.
func order(switchovers, crashes int) []string {
	events := append(slices.Repeat([]string{"switchover"}, switchovers), slices.Repeat([]string{"crash"}, crashes)...)
	rand.Shuffle(len(events), func(i, k int) { events[i], events[k] = events[k], events[i] })
	return events
}

func prepare(ctx context.Context, t *testing.T, h *herdtest.Herd) {
	t.Helper()
	c, err := pgconn.Connect(ctx, h.DSN())
	if err == nil {
		_, err = c.Exec(ctx, "create schema soak; create table soak.ledger (client int, seq int, tag text, primary key (client, seq))").ReadAll()
		_ = c.Close(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// work lets the clients begin. They finish what is under way when stop is called.
func work(ctx context.Context, h *herdtest.Herd, l *ledger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for id := range *clients {
		k := kinds[id%len(kinds)]
		c := &client{ledger: l, id: id, kind: k.name, turn: k.turn, dsn: h.DSN(), longest: *longest, r: rand.New(rand.NewPCG(uint64(id), uint64(time.Now().UnixNano())))}
		c.pause = time.Duration(*clients) * time.Second / time.Duration(*rate)
		if k.name == "idle" {
			c.pause = 2 * time.Second
		}
		all.Go(func() { c.run(ctx) })
	}
	return func() { cancel(); all.Wait() }
}

// more waits until n more turns were acknowledged.
func more(ctx context.Context, l *ledger, n int) error {
	want := l.acknowledged() + n
	for l.acknowledged() < want {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for acknowledgements: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// happen lets one thing happen under load and waits until the herd is whole again.
func happen(ctx context.Context, h *herdtest.Herd, l *ledger, event string) (time.Duration, error) {
	s, err := h.WaitSync(ctx)
	if err == nil {
		err = more(ctx, l, 300)
	}
	if err != nil {
		return 0, err
	}
	began := time.Now()
	switch event {
	case "switchover":
		var out string
		if out, err = h.Manada(ctx, "switchover"); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	case "crash":
		if err = h.KillPostmaster(s.Primary); err == nil {
			err = h.WaitOtherPrimary(ctx, s.Primary)
		}
	}
	if err == nil {
		err = more(ctx, l, 300)
	}
	if err != nil {
		return 0, err
	}
	if _, err := h.WaitSync(ctx); err != nil {
		return 0, err
	}
	return l.hold(began), nil
}

// unpromised are the errors of an event that no client may see when sessions
// outlive their servers: what is open at the end of a hold, or when the primary
// dies, gets 40001; 08007 is for what was under way at a server that died.
func unpromised(event string, before, after map[string]int) []string {
	var out []string
	for e, n := range after {
		n -= before[e]
		fine := strings.HasSuffix(e, " transaction 40001") || event == "crash" && (strings.HasSuffix(e, " 08007") || strings.HasSuffix(e, " 40001"))
		if n > 0 && !fine {
			out = append(out, fmt.Sprintf("%d times %s", n, e))
		}
	}
	slices.Sort(out)
	return out
}

func report(t *testing.T, l *ledger, holds []time.Duration) {
	t.Helper()
	t.Logf("%s", l)
	for _, r := range l.refusal {
		t.Logf("  e.g. %s", r)
	}
	if len(holds) > 0 {
		slices.Sort(holds)
		t.Logf("%d switchovers: hold p50 %s, max %s", len(holds), holds[len(holds)/2].Round(time.Millisecond), holds[len(holds)-1].Round(time.Millisecond))
		if *hold > 0 && holds[len(holds)-1] > *hold {
			t.Errorf("a switchover held everybody up for %s, at most %s is promised", holds[len(holds)-1], *hold)
		}
	}
	if n := l.lost["idle"]; *live && n > 0 {
		t.Errorf("%d idle sessions were lost", n)
	}
	for k, n := range l.errs {
		if (strings.HasSuffix(k, " cut") || strings.HasSuffix(k, " lost")) && !strings.HasPrefix(k, "copy copy ") {
			t.Errorf("%d times %s: a client was not told", n, k)
		}
	}
	for _, w := range l.wrong {
		t.Error(w)
	}
}
