package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
)

// Before a switchover the WAL segment is filled nearly to its end: what the stop
// has to write and send is no more than what is left then.
func TestFillSegment(t *testing.T) {
	a := leader(t, "a", func(c *Config) { c.Params["wal_level"] = "logical" })
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	_, err := a.SetSync(ctx, cluster.WaitFor(1, 1, "b"))
	must(t, err)
	position := func() (segment, left int64) {
		end := int64(a.observe().Inserted)
		return end >> 24, 1<<24 - end&(1<<24-1)
	}
	segment, before := position()
	if before < 2*FillMost {
		a.sql("select pg_switch_wal()")
		segment, before = position()
	}

	// Whoever decodes WAL is not shown our messages.
	a.sql("select pg_create_logical_replication_slot('s', 'test_decoding')")
	if n, err := a.FillSegment(ctx, "b@e1", FillMost); n != 0 || err != nil {
		t.Errorf("%d bytes written where there is a logical slot: %v", n, err)
	}
	a.sql("select pg_drop_replication_slot('s')")

	// A standby that does not flush is waited for, until ctx ends.
	receiver := b.observe().Receivers[0]
	must(t, syscall.Kill(receiver, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(receiver, syscall.SIGCONT) })
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if n, err := a.FillSegment(short, "b@e1", FillMost); n != fillPiece || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d bytes written though the standby has not flushed the first %d: %v", n, fillPiece, err)
	}
	must(t, syscall.Kill(receiver, syscall.SIGCONT))

	// The checkpoint makes the next segment's file, which the stop would else have to.
	first, err := a.FillSegment(ctx, "b@e1", FillFirst)
	must(t, err)
	if s, left := position(); s != segment || left > FillFirst+fillPiece {
		t.Errorf("%d bytes are left of %x before the checkpoint", left, s)
	}
	next := filepath.Join(a.cfg.DataDir, "pg_wal", fmt.Sprintf("%08X%08X%08X", 1, 0, segment+1))
	if _, err := os.Stat(next); err == nil {
		t.Fatal("the next segment is there already: this shows nothing")
	}
	must(t, a.Checkpoint(ctx))
	if _, err := os.Stat(next); err != nil {
		t.Errorf("the next segment is not there after the checkpoint: %v", err)
	}

	n, err := a.FillSegment(ctx, "b@e1", FillMost)
	must(t, err)
	n += first
	// The headers of pages count as written by clients.
	s, left := position()
	if s != segment || left < FillMost-fillLeast || left > FillMost+fillPiece/2 || n > before {
		t.Errorf("%d bytes written in segment %x of which %d were left: %d are left of %x now", n, segment, before, left, s)
	}
	until(t, "the standby has all", func() bool { return b.observe().Received == a.observe().Inserted })
	if n, err := a.FillSegment(ctx, "b@e1", FillMost); n > fillPiece/2 || err != nil {
		t.Errorf("%d more bytes written: %v", n, err)
	}
}

// What clients are going to write until the stop stays free.
func TestFillPiece(t *testing.T) {
	const mb = 1 << 20
	for _, x := range []struct {
		left, clients int64 // bytes, bytes a second
		want          int64
	}{
		{16 * mb, 0, fillPiece},
		{16 * mb, 20 * mb, fillPiece},
		{FillMost + 100<<10, 0, 100 << 10},
		{FillMost + 3*mb, 5 * mb, fillPiece},
		{FillMost + 2*mb, 5 * mb, -mb / 2},
	} {
		f := filling{end: 7 + x.clients*2, left: x.left}
		if got := f.piece(7, 2*time.Second, FillMost); got != x.want {
			t.Errorf("%d bytes are left, clients write %d a second: a piece of %d, want %d", x.left, x.clients, got, x.want)
		}
	}
}
