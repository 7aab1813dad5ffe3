package soak

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
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
	mode        = flag.String("mode", "auto", "how clients share connections; in all but session they outlive their servers")
	hold        = flag.Duration("hold", 0, "how long a switchover may hold everybody up; 0: any time")
	halfHold    = flag.Duration("half-hold", 0, "how long half of the switchovers may; 0: any time")
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
	if err := h.Configure(ctx, "proxy", "\nproxy:\n  pool:\n    mode: "+*mode+"\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.WaitSync(ctx); err != nil {
		t.Fatal(err)
	}
	prepare(ctx, t, h)
	if err := h.WaitCaughtUp(ctx, "slave"); err != nil {
		t.Fatal(err)
	}
	l := newLedger()
	stop := work(ctx, h, l)
	defer stop()
	var f figures
	for i, event := range events {
		before, lost := l.seen(), l.sessionsLost()
		held, err := happen(ctx, h, l, event)
		if err != nil {
			t.Fatalf("event %d, %s: %v\n%s", i+1, event, err, l)
		}
		t.Logf("%d of %d, %s: longest without an acknowledgement %s", i+1, len(events), event, held.Round(time.Millisecond))
		for _, e := range f.add(event, held, newSince(before, l.seen()), l.sessionsLost()["idle"]-lost["idle"]) {
			t.Errorf("event %d, %s: %s", i+1, event, e)
		}
	}
	stop()
	check(ctx, t, h, l)
	report(t, l, &f)
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
		switch k.name {
		case "idle":
			c.pause = 2 * time.Second
		case standby:
			c.dsn = h.ReadOnlyDSN()
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
