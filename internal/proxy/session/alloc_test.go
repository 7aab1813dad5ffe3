//go:build !race

// The race detector makes sync.Pool drop what it holds.

package session

import (
	"io"
	"testing"
)

// The copy path allocates nothing per message, and an idle session holds no buffer.
func TestRelayDoesNotAllocate(t *testing.T) {
	_, app, db, done := relayed(t)
	buf := make([]byte, 1000)
	trip := func() {
		app.Write(queryMsg)
		if _, err := io.ReadFull(db, buf[:len(queryMsg)]); err != nil {
			t.Fatal(err)
		}
		db.Write(answer)
		if _, err := io.ReadFull(app, buf[:len(answer)]); err != nil {
			t.Fatal(err)
		}
	}
	trip()
	if n := testing.AllocsPerRun(200, trip); n >= 1 {
		t.Errorf("%.1f allocations per round trip", n)
	}
	app.Close()
	db.Close()
	<-done

	a, b := pair(t)
	src := newSource(a)
	b.Write([]byte("hello"))
	if err := src.fill(); err != nil || string(src.held()) != "hello" {
		t.Fatalf("%q, %v", src.held(), err)
	}
	src.consume(5)
	if src.buf != nil {
		t.Error("a drained source keeps its buffer")
	}
	waiting := make(chan error)
	go func() { waiting <- src.fill() }()
	b.Close()
	if err := <-waiting; err != io.EOF || src.buf == nil {
		t.Errorf("%v", err)
	}
	src.release()
}
