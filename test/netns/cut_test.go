package netns

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/test/trust"
)

// cutFrom lets what a host sends to another go nowhere, silently; the function
// mends it.
func (m *machine) cutFrom(o *machine) (mend func()) {
	m.must("ip neigh replace " + o.addr + " lladdr 02:00:00:00:00:99 nud permanent dev eth0")
	return func() { m.must("ip neigh del " + o.addr + " dev eth0") }
}

// cutApart: primary and standby lose each other, and both reach the witness.
// Clients that name the proxies of both get in, also when the first one is that
// of the host that cannot reach the primary.
func (l *lab) cutApart(t *testing.T) {
	primary := l.healthy("witness").Primary
	standby := other(primary)
	var slowest time.Duration
	cut := time.Now()
	ends := []func(){l.hosts[standby].cutFrom(l.hosts[primary]), l.hosts[primary].cutFrom(l.hosts[standby])}
	for i := range trust.Runs(2, 10) { // the first while nobody knows yet
		began := time.Now()
		out, err := l.here("app", fmt.Sprintf(`psql -XAtq "%s" -c 'select pg_is_in_recovery()'`, l.libpq(5431, standby, primary)))
		took := time.Since(began)
		slowest = max(slowest, took)
		if err != nil || out != "f\n" || took > 2*time.Second {
			t.Errorf("client %d, %s after the cut: %q, %v after %s", i, began.Sub(cut).Round(time.Millisecond), out, err, took)
		}
	}
	l.await("witness", 20*time.Second, "the primary to go on alone", func(s cluster.Status) bool { return s.Primary == primary && s.K == 0 })
	for _, mend := range ends {
		mend()
	}
	l.await(primary, 60*time.Second, "commits to be synchronous again", func(s cluster.Status) bool {
		return s.Primary == primary && s.K == 1 && slices.Contains(s.Sync, standby)
	})
	t.Logf("slowest client %s", slowest.Round(time.Millisecond))
}

// libpq is dsn for programs that wait as long as the proxy lets them.
func (l *lab) libpq(port int, hosts ...string) string {
	return l.dsn(port, hosts...) + " connect_timeout=30"
}

// killedUnderClients: the primary's processes are killed while clients connect.
// None is refused; they wait for the new primary.
func (l *lab) killedUnderClients(t *testing.T) {
	old := l.healthy("witness").Primary
	standby := other(old)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var refused []error
	connected := map[bool]int{} // by: after the takeover
	over := false
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := pgconn.Connect(context.WithoutCancel(ctx), l.libpq(5431, standby, old))
				mu.Lock()
				if err != nil {
					refused = append(refused, err)
				} else {
					connected[over]++
				}
				mu.Unlock()
				if err == nil {
					c.Close(context.WithoutCancel(ctx))
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // some are on their way
	l.hosts[old].must(`kill -9 $(head -1 $(find /var/lib/manada -name postmaster.pid))`)
	l.await(standby, 20*time.Second, "a takeover", func(s cluster.Status) bool { return s.Primary == standby })
	mu.Lock()
	over = true
	mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		mu.Lock()
		n := connected[true]
		mu.Unlock()
		if n >= 20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody gets in after the takeover")
		}
	}
	cancel()
	wg.Wait()
	if len(refused) > 0 {
		t.Errorf("%d clients were refused, the first: %v", len(refused), refused[0])
	}
	l.healthy("witness")
	t.Logf("%d clients before and %d after", connected[false], connected[true])
}
