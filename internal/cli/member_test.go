package cli

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

// A host that is lost while it is asked is asked again for what may be asked twice, and
// once only for all else.
func TestAskedAgain(t *testing.T) {
	dir := t.TempDir()
	if _, err := pki.Found(dir, "olivo", "db1", pki.KindData, []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	id, err := pki.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var pauses, switches atomic.Int32
	lost := func(w http.ResponseWriter) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			c.Close()
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc(verb.Status.Pattern(), func(w http.ResponseWriter, _ *http.Request) { peer.WriteJSON(w, cluster.Status{}) })
	mux.HandleFunc(verb.Switchover.Pattern(), func(w http.ResponseWriter, _ *http.Request) { switches.Add(1); lost(w) })
	mux.HandleFunc(verb.Pause.Pattern(), func(w http.ResponseWriter, _ *http.Request) {
		if pauses.Add(1) == 1 {
			lost(w)
			return
		}
		peer.WriteJSON(w, struct{}{})
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux, TLSConfig: id.ServerTLSOptionalClient()}
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })

	c := &caller{id: id, target: []target{{"db1", l.Addr().String()}}}
	if err := c.write(t.Context(), verb.Pause, struct{}{}, nil); err != nil || pauses.Load() != 2 {
		t.Errorf("pause was asked %d times: %v", pauses.Load(), err)
	}
	if err := c.write(t.Context(), verb.Switchover, struct{}{}, nil); err == nil || switches.Load() != 1 {
		t.Errorf("switchover was asked %d times: %v", switches.Load(), err)
	}
}
