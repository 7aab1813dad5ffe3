package intruder

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"manada/internal/pki"
	"manada/internal/verb"
	"manada/test/trust"
)

// TestTrustIntruder is one herd and everybody who attacks it. Who is no host of
// the herd any more, and what was made of a host's copy of the authority's key,
// does nothing at all five seconds after the removal.
func TestTrustIntruder(t *testing.T) {
	s := victims(t)
	before := s.programs()
	t.Run("Table", func(t *testing.T) { s.with(t).table() })
	t.Run("Noise", func(t *testing.T) { s.with(t).noise() })
	s.wantOK("after the noise")
	after := s.programs()
	for _, pid := range before {
		if !slices.Contains(after, pid) {
			t.Errorf("process %d of the herd has died; of %v there are %v", pid, before, after)
		}
	}
	t.Run("Floods", func(t *testing.T) { s.with(t).floods() })
	t.Run("Forges", func(t *testing.T) { s.with(t).forges() })
	t.Run("Tokens", func(t *testing.T) { s.with(t).tokens() })
	for i := range trust.Runs(1, 10) {
		t.Run(fmt.Sprintf("Removed %d", i+1), func(t *testing.T) { s.with(t).removed(fmt.Sprintf("x%d", i+1)) })
	}
	t.Run("Restarted", func(t *testing.T) { s.with(t).restarted() })
	t.Run("Older", func(t *testing.T) { s.with(t).older() })
	t.Run("Exposed", func(t *testing.T) { s.with(t).exposed() }) // people chose a password from here on
}

// with is the site for a part of the test.
func (s *site) with(t *testing.T) *site {
	c := *s
	c.T = t
	return &c
}

// table tries everything as everybody and compares with who may do what.
func (s *site) table() {
	var (
		anybody = func(a string) bool { return strings.HasPrefix(a, "public") }
		reads   = func(a string) bool { return anybody(a) || strings.HasPrefix(a, "7400") && mayAsk(a, verb.Hosts) }
		outside = func(a string) bool { return anybody(a) && !strings.HasPrefix(a, "public 8432") } // where a certificate is asked for
		all     = func(a string) bool {
			return !strings.HasPrefix(a, "never") && !strings.HasPrefix(a, "8008") && !strings.HasPrefix(a, "8010") &&
				(!strings.HasPrefix(a, "7400") || mayAsk(a, verb.Members))
		}
	)
	key := s.steal(copied(s, "", s.cfgs["slave"].IdentityDir()))
	day := 24 * time.Hour
	expired := key.mint(s, "slave", pki.KindData, nil, time.Now().Add(-400*day), time.Now().Add(-day))
	expired.name = "expired"
	people := []struct {
		person
		may func(string) bool
	}{
		{person{name: "nobody"}, anybody},
		{stranger(s, "foreign authority", "other"), outside},
		{stranger(s, "another herd of the same name", s.cfgs["master"].Cluster), outside},
		{expired, outside},
		{copied(s, "proxy", s.cfgs["proxy"].IdentityDir()), reads},
		{copied(s, "witness", s.cfgs["backup"].IdentityDir()), all},
		{copied(s, "data host", s.cfgs["slave"].IdentityDir()), all},
	}
	for _, p := range key.mints(s) {
		people = append(people, struct {
			person
			may func(string) bool
		}{p, anybody})
	}
	tried := 0
	for _, p := range people {
		tried += s.tryAll(p.person, actions(), func(a action, err error) {
			if may := p.may(a.name); (err == nil) != may {
				s.Errorf("%s: %s: allowed %v, want %v (%v)", p.name, a.name, err == nil, may, err)
			}
		})
	}
	s.Logf("%d actions of %d people", tried, len(people))
}

// tryAll tries actions, several at a time, and tells how each ended.
func (s *site) tryAll(p person, all []action, told func(action, error)) int {
	s.Helper()
	var g errgroup.Group
	g.SetLimit(12)
	for _, a := range all {
		g.Go(func() error { told(a, a.try(s, p)); return nil })
	}
	_ = g.Wait()
	return len(all)
}

// removed: a data host and a proxy are copied, their connections stay open, and
// both are removed.
func (s *site) removed(node string) {
	host, proxy := s.joined(node, pki.KindData), s.joined(node+"p", pki.KindProxy)
	key := s.steal(host)
	people := append([]person{host, proxy}, key.mints(s)...)
	late := key.mint(s, node, pki.KindData, nil, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	people = append(people, late)
	for end := time.Now().Add(5 * time.Second); reaches(verb.ProxyIndex, "proxy")(s, host) != nil && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond) // a host with nothing but a proxy hears of newcomers from the others
	}
	s.tryAll(host, actions(), func(a action, err error) {
		if err != nil && !strings.HasPrefix(a.name, "never") && !strings.HasPrefix(a.name, "8008") && !strings.HasPrefix(a.name, "8010") {
			s.Errorf("%s before the removal: %v", a.name, err)
		}
	})
	open := append(s.hold(host), s.holdLogins(host)...)
	for _, n := range []string{node, node + "p"} {
		if out, err := s.Manada(s.ctx, "node", "remove", n, "--yes"); err != nil {
			s.Fatalf("manada node remove %s: %v\n%s", n, err, out)
		}
	}
	end := time.Now().Add(5 * time.Second)
	for _, o := range open {
		if err := o.ends(end); err != nil {
			s.Errorf("a connection to %s from before the removal: %v", o.name, err)
		}
	}
	time.Sleep(time.Until(end)) // the promise: five seconds
	s.doNothing(people, "five seconds after the removal")
	s.settled() // a voter that was starting again kept everybody out
	s.doNothing(people, "when all voters had started again")
	kvs, err := s.readStore(copied(s, "", s.cfgs["master"].IdentityDir()), "master")
	must(s, err)
	if _, err := openAuthority(kvs, host.kek); err == nil {
		s.Errorf("the kek of %s opens the new authority's key", host.name)
	}
	s.certificateIsNothing(host)
	s.wantOK("after a removal")
}

// doNothing: people of a removed host have tried everything in vain.
func (s *site) doNothing(people []person, when string) {
	s.Helper()
	var did atomic.Int32
	tried := 0
	for _, p := range people {
		all := slices.DeleteFunc(actions(), func(a action) bool { return strings.HasPrefix(a.name, "public") })
		tried += s.tryAll(p, append(all, s.loginActions(p)...), func(a action, err error) {
			if err == nil {
				did.Add(1)
				s.Errorf("%s, of a removed host: %s succeeded %s", p.name, a.name, when)
			}
		})
	}
	s.Logf("%d actions tried %s, %d succeeded", tried, when, did.Load())
}

// held is a connection from before; ends returns nil when it is over by then.
type held struct {
	name string
	ends func(by time.Time) error
}

// hold opens what a host may have open.
func (s *site) hold(p person) []held {
	s.Helper()
	watch := func(port string) held { return s.holdHTTP(p, port) }
	return []held{s.holdStore(p), s.holdBeats(p), watch("2380"), watch("8432"), watch("7400")}
}

// holdStore watches the store and reads over the same connection.
func (s *site) holdStore(p person) held {
	s.Helper()
	c, err := s.etcd(p, "master")
	must(s, err)
	s.Cleanup(func() { c.Close() })
	w := c.Watch(s.ctx, "/", clientv3.WithPrefix())
	read := func() error {
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		_, err := c.Get(ctx, "/intruder")
		return err
	}
	must(s, read())
	return held{"2379", func(by time.Time) error {
		for time.Now().Before(by) {
			select {
			case <-w:
			default:
			}
			if read() != nil {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return errNotCut
	}}
}

// holdBeats listens to what the hosts say.
func (s *site) holdBeats(p person) held {
	s.Helper()
	tr := &http.Transport{TLSClientConfig: p.tls()}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "https://"+s.at("master", peerPort)+"/v1/beats", nil)
	must(s, err)
	resp, err := tr.RoundTrip(req)
	must(s, err)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		s.Fatalf("no beats: %v", lines.Err())
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for lines.Scan() {
		}
	}()
	s.Cleanup(func() { resp.Body.Close(); tr.CloseIdleConnections(); <-over })
	return held{"7400, beats", func(by time.Time) error {
		select {
		case <-over:
			return nil
		case <-time.After(time.Until(by)):
			return errNotCut
		}
	}}
}

// holdHTTP keeps a connection on which it asks again and again.
func (s *site) holdHTTP(p person, port string) held {
	s.Helper()
	addr := map[string]string{"2380": s.at("slave", storePeerPort), "8432": s.at("backup", backupPort), "7400": s.at("slave", peerPort)}[port]
	path := map[string]string{"2380": "/members", "8432": "/repo/list/", "7400": "/v1/view"}[port]
	c, err := tls.Dial("tcp", addr, p.tls())
	must(s, err)
	s.Cleanup(func() { c.Close() })
	r := bufio.NewReader(c)
	ask := func() error {
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: herd\r\n\r\n", path); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := bufio.NewReader(resp.Body).WriteTo(discard{}); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
	must(s, ask())
	return held{port, func(by time.Time) error {
		for time.Now().Before(by) {
			if ask() != nil {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return errNotCut
	}}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
