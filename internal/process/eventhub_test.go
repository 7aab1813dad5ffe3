package process

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"manada/internal/api"
	"manada/internal/store"
)

// history is a store's events and what was asked of it.
type history struct {
	mu     sync.Mutex
	events []store.Event
	after  []int64
	opened int
	closed int
	fail   error
}

func (h *history) open(context.Context) (eventReader, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened++
	return h, nil
}

func (h *history) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed++
	return nil
}

func (h *history) add(kind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, store.Event{N: int64(len(h.events) + 1), Kind: kind})
}

func (h *history) Events(_ context.Context, after int64, _ int) ([]store.Event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.after = append(h.after, after)
	if h.fail != nil {
		return nil, h.fail
	}
	return append([]store.Event(nil), h.events[min(int(after), len(h.events)):]...), nil
}

func next(t *testing.T, ch <-chan api.Event, id uint64, kind string) {
	t.Helper()
	select {
	case e, ok := <-ch:
		if !ok || e.ID != id || e.Kind != kind {
			t.Fatalf("%+v %v, want %d %s", e, ok, id, kind)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("no event %d", id)
	}
}

// All streams share one reader, which asks only for what is new and ends with
// the last of them; there is a limit.
func TestEventHub(t *testing.T) {
	h := &history{}
	h.add("one")
	h.add("two")
	hub := newEventHub(h.open)
	ctx, cancel := context.WithCancel(t.Context())
	var chans []<-chan api.Event
	for i := range maxStreams {
		ch, err := hub.Subscribe(ctx, uint64(i%2))
		if err != nil {
			t.Fatal(err)
		}
		chans = append(chans, ch)
	}
	var busy *api.Error
	if _, err := hub.Subscribe(ctx, 0); !errors.As(err, &busy) || busy.Code != api.CodeBusy {
		t.Errorf("beyond the limit: %v", err)
	}
	for i, ch := range chans {
		if i%2 == 0 {
			next(t, ch, 1, "one")
		}
		next(t, ch, 2, "two")
	}
	h.add("three")
	for _, ch := range chans {
		next(t, ch, 3, "three")
	}
	h.mu.Lock()
	if h.opened != 1 || h.after[0] != 0 || h.after[len(h.after)-1] < 2 || len(h.after) > 20 {
		t.Errorf("opened %d times, asked after %v", h.opened, h.after)
	}
	h.mu.Unlock()
	cancel()
	for _, ch := range chans {
		for range ch {
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		h.mu.Lock()
		closed := h.closed
		h.mu.Unlock()
		if closed == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the reader goes on without anybody")
		}
	}
	// One that cannot begin says so, and the next one begins anew.
	h.fail = errors.New("away")
	if _, err := hub.Subscribe(t.Context(), 0); !errors.Is(err, h.fail) {
		t.Errorf("%v", err)
	}
	h.mu.Lock()
	h.fail = nil
	h.mu.Unlock()
	ctx, cancel = context.WithCancel(t.Context())
	ch, err := hub.Subscribe(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	next(t, ch, 3, "three")
	cancel()
	for range ch {
	}
}
