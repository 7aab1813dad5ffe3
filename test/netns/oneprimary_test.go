package netns

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manada/internal/cluster"
	"manada/test/trust"
)

// TestTrustOnePrimary asks both database hosts, each from inside, who the primary
// is, some fifty times a second, while one of them is frozen or cut off. Never do
// two of them say 200; neither does the metric.
func TestTrustOnePrimary(t *testing.T) {
	if !trust.All() {
		t.Skip("a part of TestTrustThreeHosts is one of these runs")
	}
	steps := readWalkThrough(t)
	rounds := trust.Runs(1, 10)
	if !inSandbox(t, limit+time.Duration(rounds)*4*time.Minute) {
		return
	}
	threeHosts(t, steps).onePrimary(t, rounds)
}

func (l *lab) onePrimary(t *testing.T, rounds int) {
	s := l.sampler(t, "db1", "db2")
	for i := range rounds {
		for _, f := range faults {
			if f.rare && !trust.All() {
				continue
			}
			t.Run(fmt.Sprintf("%s %d", f.name, i+1), func(t *testing.T) { l.onePrimaryThrough(t, s, f) })
			if t.Failed() {
				return
			}
		}
	}
	s.stop()
	if s.all < 100*rounds || s.one < s.all/4 {
		t.Errorf("%d samples, %d of them with a primary: this shows nothing", s.all, s.one)
	}
	t.Logf("%d samples of both hosts, with one primary %d, with two %d", s.all, s.one, len(s.two))
	for _, two := range s.two {
		t.Errorf("two primaries: %s", two)
	}
}

// fault is something that keeps a primary's host from the others, and its end.
type fault struct {
	name      string
	on, off   func(m *machine)
	rare      bool // only in `make trust`
	overtaken bool // a standby takes over meanwhile
	reachable bool // the host can be asked meanwhile
}

var faults = []fault{
	{"cut off", func(m *machine) { m.link("down") }, func(m *machine) { m.link("up") }, false, true, true},
	{"hears nobody", dropping("input", "iifname"), undropping, true, true, true},
	{"is not heard", dropping("output", "oifname"), undropping, false, true, true},
	{"frozen", func(m *machine) { m.must("kill -STOP -1") }, func(m *machine) { m.must("kill -CONT -1") }, false, true, false},
	{"agent frozen", func(m *machine) { m.must("pkill -STOP -f 'manada agent'") }, func(m *machine) { m.must("pkill -CONT -f 'manada agent'") }, true, false, false},
}

// dropping cuts one direction of a host's network.
func dropping(hook, iface string) func(*machine) {
	return func(m *machine) {
		m.must(fmt.Sprintf("nft 'add table inet cut; add chain inet cut c { type filter hook %s priority 0; }; add rule inet cut c %s eth0 drop'", hook, iface))
	}
}

func undropping(m *machine) { m.must("nft delete table inet cut") }

// onePrimaryThrough does it to the primary's host and waits until all is well again.
func (l *lab) onePrimaryThrough(t *testing.T, s *sampler, f fault) {
	old := l.healthy("witness").Primary
	standby := other(old)
	s.await(t, "one primary before", func(ok map[string]bool) bool { return ok[old] })
	f.on(l.hosts[old])
	undo := sync.OnceFunc(func() { f.off(l.hosts[old]) })
	defer undo()
	if f.overtaken {
		l.await(standby, 30*time.Second, "a takeover", func(st cluster.Status) bool { return st.Primary == standby })
		s.await(t, "the new primary to say so", func(ok map[string]bool) bool { return ok[standby] && !ok[old] })
	}
	if f.reachable {
		l.saysWritesWait(t, old)
	}
	time.Sleep(2 * time.Second) // of samples; a host that is thawed must have stood still for longer than its evidence counts
	undo()
	st := l.healthy("witness")
	s.await(t, "one primary after", func(ok map[string]bool) bool { return ok[st.Primary] })
}

// saysWritesWait: the host that is cut off says so everywhere.
func (l *lab) saysWritesWait(t *testing.T, host string) {
	l.await(host, 15*time.Second, "the host that is cut off to say that writes wait", func(st cluster.Status) bool {
		return st.Health == cluster.HealthDown && strings.Contains(st.Conditions[0].Text, "writes on "+host+" wait")
	})
	m := l.hosts[host]
	out, err := m.run("manada status --check")
	if first, _, _ := strings.Cut(out, "\n"); err == nil || !strings.Contains(first, "DOWN") || !strings.Contains(first, "wait") {
		t.Errorf("%s says (%v): %s", host, err, out)
	}
	if out, _ := m.run("set +e; manada status --check >/dev/null; echo $?"); strings.TrimSpace(out) != "4" {
		t.Errorf("%s: status --check ends with %s, want 4", host, out)
	}
	for _, where := range []string{"8008/primary", "8008/leader", "8008/read-write", "8008/master", "8010/primary"} {
		if code, body := m.ask(t.Context(), where); code != http.StatusServiceUnavailable {
			t.Errorf("%s: %s answers %d: %s", host, where, code, body)
		}
	}
	if _, body := m.ask(t.Context(), "8008/metrics"); !strings.Contains(body, `manada_primary{cluster="orders",node="`+host+`"} 0`) {
		t.Errorf("%s does not export manada_primary 0", host)
	}
}

// ask makes a request on the host itself, as its load balancer would; 0: no answer.
func (m *machine) ask(ctx context.Context, where string) (code int, body string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	port, path, _ := strings.Cut(where, "/")
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: m.dial, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	return get(ctx, &http.Client{Transport: tr}, "https://"+net.JoinHostPort(m.addr, port)+"/"+path)
}

func get(ctx context.Context, c *http.Client, url string) (code int, body string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// dial connects from within the host's network.
func (m *machine) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	ch := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		ns, err := unix.Open("/proc/"+strconv.Itoa(m.init.Process.Pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(ns, unix.CLONE_NEWNET)
			_ = unix.Close(ns)
		}
		if err != nil {
			ch <- result{nil, fmt.Errorf("enter the network of %s: %w", m.name, err)}
			return
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, addr)
		ch <- result{c, err}
	}()
	r := <-ch
	return r.c, r.err
}

// sampler asks all hosts at the same time, again and again.
type sampler struct {
	hosts  []*machine
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	last     map[string]bool // who said 200 in the newest sample
	n        int
	all, one int
	two      []string
}

func (l *lab) sampler(t *testing.T, hosts ...string) *sampler {
	ctx, cancel := context.WithCancel(t.Context())
	s := &sampler{cancel: cancel, done: make(chan struct{}), last: map[string]bool{}}
	clients := map[string]*http.Client{}
	for _, h := range hosts {
		m := l.hosts[h]
		s.hosts = append(s.hosts, m)
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: m.dial, MaxIdleConnsPerHost: 2}
		clients[h] = &http.Client{Transport: tr}
		t.Cleanup(tr.CloseIdleConnections)
	}
	t.Cleanup(s.stop)
	go func() {
		defer close(s.done)
		for ctx.Err() == nil {
			s.sample(ctx, clients)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return s
}

func (s *sampler) stop() { s.cancel(); <-s.done }

// sample asks each host, every tenth time for its metric instead.
func (s *sampler) sample(ctx context.Context, clients map[string]*http.Client) {
	began := time.Now()
	path := "/primary"
	if s.n%10 == 9 {
		path = "/metrics"
	}
	ok := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range s.hosts {
		wg.Go(func() {
			// Longer than a frozen host's pending question is kept: what a thaw finds
			// in its sockets must not be answered from before either.
			one, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
			defer cancel()
			code, body := get(one, clients[m.name], "https://"+net.JoinHostPort(m.addr, "8008")+path)
			says := code == http.StatusOK
			if path == "/metrics" {
				says = strings.Contains(body, `manada_primary{cluster="orders",node="`+m.name+`"} 1`)
			}
			mu.Lock()
			defer mu.Unlock()
			if says {
				ok[m.name] = true
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.all++
	s.last = ok
	switch len(ok) {
	case 0:
	case 1:
		s.one++
	default:
		s.two = append(s.two, fmt.Sprintf("%s from %s to %s: %v", path, began.Format(time.StampMilli), time.Now().Format(time.StampMilli), slices.Sorted(maps.Keys(ok))))
	}
}

// await waits until a sample is what is wanted.
func (s *sampler) await(t *testing.T, what string, good func(ok map[string]bool) bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		s.mu.Lock()
		last, two := s.last, s.two
		s.mu.Unlock()
		switch {
		case len(two) > 0:
			t.Fatalf("two primaries: %s", two[0])
		case good(last):
			return
		case time.Now().After(deadline):
			t.Fatalf("wait for %s: the newest sample says %v", what, last)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
