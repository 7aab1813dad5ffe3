package console

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy/wire"

	"github.com/jackc/pgx/v5/pgconn"
)

// A client that leaves while its order waits ends the wait.
func TestLeavingEndsTheWait(t *testing.T) {
	o := newOrders()
	o.wait = make(chan struct{})
	addr, stop := serve(t, &o.Source, Admin)
	c := dial(t, addr, "").PgConn()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, "pause").ReadAll(); err == nil {
		t.Fatal("PAUSE did not wait")
	}
	stop() // waits for Serve
	if !slices.Equal(o.told, []string{"pause", "gone"}) {
		t.Error(o.told)
	}
}

// What an order leaves to say is a notice.
func TestNote(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Admin)
	cfg, err := pgconn.ParseConfig("postgres://app@" + addr + "/manada?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { said = n.Message }
	c, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "reload").ReadAll(); err != nil || said != "restart something" {
		t.Errorf("%v, %q", err, said)
	}
}

func TestShutdownIsSaid(t *testing.T) {
	addr, stop := serve(t, &newOrders().Source, Read)
	c := dial(t, addr, "").PgConn()
	go stop()
	_, err := c.ReceiveMessage(t.Context())
	if sqlState(err) != "57P01" {
		t.Error(err)
	}
}

// Garbage ends the one who sent it, with a word.
func TestGarbage(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Admin)
	for _, raw := range [][]byte{{'Q', 0xff, 0xff, 0xff, 0xff}, {'Q', 0x7f, 0xff, 0xff, 0xff}, {'B', 0, 0, 0, 4}, {'B', 0, 0, 0, 7, 0, 'x', 1}, {'E', 0, 0, 0, 5, 0}, {'D', 0, 0, 0, 4},
		{'P', 0, 0, 0, 6, 'a', 'b'}, {'C', 0, 0, 0, 6, 'Q', 0}, {'F', 0, 0, 0, 4}, {0, 0, 0, 0, 4}, {'d', 0, 0, 0, 4}} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		conn.Write(wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "x"}}))
		for typ := byte(0); typ != wire.TypeReady; {
			if typ, _, err = wire.ReadMessage(conn, maxMessage); err != nil {
				t.Fatal(err)
			}
		}
		conn.Write(append(raw, wire.AppendMessage(nil, wire.TypeSync, nil)...))
		typ, body, err := wire.ReadMessage(conn, maxMessage)
		if err != nil || typ != wire.TypeError {
			t.Errorf("% x: %q %v", raw, typ, err)
			continue
		}
		if e := wire.ParseError(body); e.Code != "08P01" && e.Code != "0A000" {
			t.Errorf("% x: %v", raw, e)
		}
		conn.Close()
	}
}

// Rows are given out by as many as Execute asks for.
func TestSuspendedPortal(t *testing.T) {
	addr, _ := serve(t, &newOrders().Source, Read)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	b := wire.AppendStartup(nil, []wire.Param{{Name: "user", Value: "x"}})
	b = wire.AppendMessage(b, 'P', []byte("\x00show lists\x00\x00\x00"))
	b = wire.AppendMessage(b, 'B', []byte("\x00\x00\x00\x00\x00\x00\x00\x00"))
	b = wire.AppendMessage(b, 'E', []byte{0, 0, 0, 0, 10})
	b = wire.AppendMessage(b, 'E', []byte{0, 0, 0, 0, 10})
	b = wire.AppendMessage(b, wire.TypeSync, nil)
	conn.Write(b)
	var got strings.Builder
	for ready := 0; ready < 2; {
		typ, _, err := wire.ReadMessage(conn, maxMessage)
		if errors.Is(err, io.EOF) || err != nil {
			t.Fatal(err)
		}
		if typ == wire.TypeReady {
			ready++
		}
		got.WriteByte(typ)
	}
	if want := "Z12" + strings.Repeat("D", 10) + "s" + strings.Repeat("D", 4) + "CZ"; !strings.HasSuffix(got.String(), want) {
		t.Errorf("%s, want %s", got.String(), want)
	}
}
