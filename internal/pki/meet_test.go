package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func meeting(t *testing.T, self Stranger, secret string) (*Meeting, string) {
	t.Helper()
	m := NewMeeting(self, func() (string, error) { return secret, nil }, nil)
	m.pause = time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); must(t, <-done) })
	return m, l.Addr().String()
}

func TestMeeting(t *testing.T) {
	a, addrA := meeting(t, Stranger{"olivo", "a", "f"}, "s3cret-word")
	b, addrB := meeting(t, Stranger{"olivo", "b", "f"}, "s3cret-word")
	who, err := a.Ask(t.Context(), addrB)
	if err != nil || who != (Stranger{"olivo", "b", "f"}) {
		t.Fatalf("%v %v", who, err)
	}
	if who, err = b.Ask(t.Context(), addrA); err != nil || who.Node != "a" {
		t.Fatalf("%v %v", who, err)
	}
	// Who does not know the secret is neither answered nor believed.
	for _, c := range []struct{ name, secret, want string }{
		{"wrong", "a wrong guess", "secret"}, {"empty", " ", "empty"}, {"weak", "1234567", "fewer than 8"},
	} {
		m := NewMeeting(Stranger{"olivo", "c", "f"}, func() (string, error) { return c.secret, nil }, nil)
		if _, err := m.Ask(t.Context(), addrA); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s secret: %v", c.name, err)
		}
	}
	// A twin is no other host, and another herd none of ours.
	twin := NewMeeting(Stranger{"olivo", "a", "f"}, a.secret, nil)
	if _, err := twin.Ask(t.Context(), addrA); err == nil {
		t.Error("a host took itself for another")
	}
	other, _ := meeting(t, Stranger{"roble", "d", "f"}, "s3cret-word")
	if _, err := other.Ask(t.Context(), addrA); err == nil {
		t.Error("hosts of two herds met")
	}
	// Somebody who wants to join is told to try again.
	_, err = Join(t.Context(), []string{addrA}, JoinOptions{Dir: t.TempDir() + "/i", Cluster: "olivo", Node: "n", Kind: KindData, Secret: "s3cret-word"})
	if !errors.Is(err, ErrNotNow) {
		t.Errorf("joining a host without a herd: %v", err)
	}
}

// TestMeetingRate: guesses are bound also for one who hangs up before the answer.
func TestMeetingRate(t *testing.T) {
	var looked atomic.Int32
	looks := make(chan struct{}, 1000)
	m, addr := meeting(t, Stranger{"olivo", "a", "f"}, "s3cret-word")
	m.pause = 400 * time.Millisecond
	m.secret = func() (string, error) { looked.Add(1); looks <- struct{}{}; return "s3cret-word", nil }
	guesser := NewMeeting(Stranger{"olivo", "b", "f"}, func() (string, error) { return "a guess of many", nil }, nil)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var second sync.Once
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				short, hangUp := context.WithCancel(ctx)
				go func() {
					select {
					case <-looks: // it is being compared
						second.Do(func() { time.AfterFunc(time.Second, end) })
					case <-short.Done():
					}
					hangUp()
				}()
				guesser.Ask(short, addr)
				hangUp()
			}
		})
	}
	wg.Wait()
	if n := looked.Load(); n == 0 || n > 3*perAddress {
		t.Errorf("%d guesses in a second, at most %d meant", n, 3*perAddress)
	}
}

// TestMeetingKnowsMembers: a host of a herd is known by its certificate.
func TestMeetingKnowsMembers(t *testing.T) {
	id, _, _ := founded(t, "olivo", "master")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{TLSConfig: id.ServerTLSOptionalClient()}
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })
	m := NewMeeting(Stranger{"olivo", "a", "f"}, func() (string, error) { return "s3cret-word", nil }, nil)
	if _, err := m.Ask(t.Context(), l.Addr().String()); !errors.Is(err, ErrMember) {
		t.Fatalf("got %v", err)
	}
}

// TestMeetingMiddleman: somebody in between, with two sessions, passes nothing on.
func TestMeetingMiddleman(t *testing.T) {
	_, addr := meeting(t, Stranger{"olivo", "a", "f"}, "s3cret-word")
	victim := NewMeeting(Stranger{"olivo", "b", "f"}, func() (string, error) { return "s3cret-word", nil }, nil)
	cert, err := throwaway(Stranger{"olivo", "a", "f"})
	must(t, err)
	between, seen := relayAs(t, addr, &tls.Config{Certificates: []tls.Certificate{cert}})
	if who, err := victim.Ask(t.Context(), between); err == nil {
		t.Fatalf("believed %v through somebody else", who)
	}
	if s := seen(); s == "" {
		t.Error("nothing went through the relay")
	}
}
