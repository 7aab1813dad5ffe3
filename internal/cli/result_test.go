package cli

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/pki"
	"manada/internal/store"
)

// A command that waits for its switchover asks every host once, then the one that
// answered, over one connection; another one when that is gone.
func TestResultAsksOneHost(t *testing.T) {
	dir := t.TempDir()
	_, err := pki.Found(dir, "herd", "a", pki.KindData, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{id: id}
	var asked, connections atomic.Int32
	done := atomic.Bool{}
	hosts := map[string]*httptest.Server{}
	last := atomic.Value{}
	for range 3 {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			last.Store(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
			q := store.Request{ID: "r"}
			if done.Load() {
				q.Result = &store.Result{Text: "done"}
			}
			_ = json.NewEncoder(w).Encode(q)
		}))
		s.TLS = id.ServerTLSOptionalClient()
		s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				connections.Add(1)
			}
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		addr := s.Listener.Addr().String()
		hosts[addr] = s
		c.target = append(c.target, target{"", addr})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		r, err := c.result(ctx, "r")
		if err == nil && r.Text != "done" {
			t.Errorf("result %+v", r)
		}
		answer <- err
	}()
	until := func(n int32) {
		for asked.Load() < n && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}
	until(10)
	if n := connections.Load(); n > 4 {
		t.Errorf("%d connections for %d questions to 3 hosts", n, asked.Load())
	}
	hosts[last.Load().(string)].CloseClientConnections()
	hosts[last.Load().(string)].Listener.Close()
	until(asked.Load() + 5)
	done.Store(true)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}
