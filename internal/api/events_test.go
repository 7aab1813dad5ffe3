package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is an EventSource of events that were there and one that comes later.
type memory struct {
	mu    sync.Mutex
	after []uint64
	fail  error
	more  chan Event
}

func (s *memory) Subscribe(ctx context.Context, after uint64) (<-chan Event, error) {
	s.mu.Lock()
	s.after = append(s.after, after)
	s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	ch := make(chan Event)
	go func() {
		defer close(ch)
		for id := after + 1; id <= 2; id++ {
			select {
			case ch <- Event{ID: id, Kind: "promoted", Data: map[string]uint64{"epoch": id}}:
			case <-ctx.Done():
				return
			}
		}
		for {
			select {
			case e := <-s.more:
				select {
				case ch <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// serve runs Serve on a free port and returns its address and how to stop it.
func serve(t *testing.T, o Options) (string, func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, ln, New(o).Handler(), nil, slog.New(slog.DiscardHandler), 5*time.Second)
	}()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	return "http://" + ln.Addr().String(), stop
}

// readUntil reads lines of a stream until one has the prefix.
func readUntil(t *testing.T, r *bufio.Reader, prefix string) []string {
	t.Helper()
	var got []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("stream ended after %q: %v", got, err)
		}
		if line = strings.TrimSpace(line); line != "" {
			got = append(got, line)
		}
		if strings.HasPrefix(line, prefix) {
			return got
		}
	}
}

func open(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestEvents(t *testing.T) {
	src := &memory{more: make(chan Event)}
	base, stop := serve(t, Options{Events: src})
	resp := open(t, base+"/v1/events")
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("content type %q", ct)
	}
	r := bufio.NewReader(resp.Body)
	got := strings.Join(readUntil(t, r, `data: {"epoch":2}`), "|")
	want := `: manada|id: 1|event: promoted|data: {"epoch":1}|id: 2|event: promoted|data: {"epoch":2}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// What cannot be encoded is passed over; what comes later still arrives.
	src.more <- Event{ID: 3, Kind: "broken", Data: func() {}}
	src.more <- Event{ID: 4, Kind: "node_lost\nid: 99", Data: "slave"}
	if got := readUntil(t, r, "data:"); got[0] != "id: 4" || got[1] != "event: node_lost id: 99" {
		t.Errorf("%q", got)
	}
	// A stop of the server ends the stream, and does not wait for the grace.
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("stopping took %s", d)
	}
	if rest, _ := io.ReadAll(r); strings.TrimSpace(string(rest)) != "" {
		t.Errorf("after the stop: %q", rest)
	}
}

func TestEventsResume(t *testing.T) {
	src := &memory{more: make(chan Event)}
	base, _ := serve(t, Options{Events: src})
	for _, resp := range []*http.Response{
		open(t, base+"/v1/events", "Last-Event-ID", "1"),
		open(t, base+"/v1/events?after=1", "Last-Event-ID", "0"),
	} {
		if got := readUntil(t, bufio.NewReader(resp.Body), "id:"); got[len(got)-1] != "id: 2" {
			t.Errorf("%q", got)
		}
		resp.Body.Close()
	}
	if resp := open(t, base+"/v1/events?after=x"); resp.StatusCode != 400 {
		t.Errorf("%d", resp.StatusCode)
	}
	src.fail = errors.New("store unreachable")
	if resp := open(t, base+"/v1/events"); resp.StatusCode != 500 {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestEventsKeepalive(t *testing.T) {
	old := keepalive
	keepalive = 10 * time.Millisecond
	t.Cleanup(func() { keepalive = old })
	base, _ := serve(t, Options{Events: &memory{more: make(chan Event)}})
	resp := open(t, base+"/v1/events?after=2")
	readUntil(t, bufio.NewReader(resp.Body), ": alive")
}

// TestStopLetsRequestsFinish: the stop of a server ends streams, not answers.
func TestStopLetsRequestsFinish(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	base, stop := serve(t, Options{Ready: func() error { close(entered); <-release; return nil }})
	code := make(chan int, 1)
	go func() {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, _ := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", base+"/readiness", nil)
		resp, err := c.Do(r)
		if err != nil {
			code <- 0
			return
		}
		resp.Body.Close()
		code <- resp.StatusCode
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(release)
	if c := <-code; c != 200 {
		t.Errorf("the request under way got %d", c)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
