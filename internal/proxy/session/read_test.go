package session

import (
	"bytes"
	"io"
	"log/slog"
	"testing"
	"time"

	"manada/internal/proxy/pool"
	"manada/internal/proxy/route"
	"manada/internal/proxy/split"
	"manada/internal/proxy/wire"
)

// A standby that answers the beginning of a batch before it reads the end, as
// PostgreSQL does, is read from meanwhile: with small buffers both would wait for
// the other for ever.
func TestReadWhileWriting(t *testing.T) {
	app, client := pair(t)
	server, _ := pair(t)
	second, standby := pair(t)
	for _, c := range []interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}{second, standby} {
		c.SetReadBuffer(16 << 10)
		c.SetWriteBuffer(8 << 10)
	}
	srv := &Server{Topology: &route.Holder{}, Log: slog.New(slog.DiscardHandler)}
	s := newSession(newClient(srv, client), &pool.Backend{Conn: server, Status: 'I'}, destination{epoch: 7, primary: true}, pool.Login{})
	s.second.backend, s.second.node = &pool.Backend{Conn: second}, "slave"
	s.second.src, s.second.stmts = newSource(second), map[string]*split.Stmt{}
	row := wire.AppendMessage(nil, wire.TypeDataRow, make([]byte, 4000))
	const items = 1000
	batch := bytes.Repeat(wire.AppendMessage(nil, 'E', make([]byte, 595)), items)
	batch = wire.AppendMessage(batch, wire.TypeSync, nil)

	served := make(chan error, 1)
	go func() { // a row for each item, then the end
		one := make([]byte, 600)
		for range items {
			if _, err := io.ReadFull(standby, one); err != nil {
				served <- err
				return
			}
			if _, err := standby.Write(row); err != nil {
				served <- err
				return
			}
		}
		_, err := io.ReadFull(standby, one[:5])
		standby.Write(wire.AppendMessage(nil, wire.TypeReady, []byte("I")))
		served <- err
	}()
	got := make(chan int64, 1)
	go func() { n, _ := io.Copy(io.Discard, app); got <- n }()

	began := time.Now()
	if what := s.read(route.Standby{Node: route.Node{Name: "slave"}}, split.Unit{Queries: items}, batch); what != offerAnswered {
		t.Errorf("%d after %s", what, time.Since(began))
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	client.Close()
	if n := <-got; n != int64(items*len(row)+6) {
		t.Errorf("%d bytes", n)
	}
	s.dropSecond()
	s.life.end()
}
