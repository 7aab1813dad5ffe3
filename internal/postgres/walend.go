package postgres

import (
	"context"
	"errors"
	"fmt"

	"manada/internal/cluster"
)

// ErrReceiverRuns: the position would move on behind the reader's back.
var ErrReceiverRuns = errors.New("a walreceiver runs")

// WALTail is where the WAL of a node ends, in detail.
type WALTail struct {
	End      cluster.LSN // the largest of what follows; what a promise says
	Complete cluster.LSN // end of the last complete record in pg_wal
	Received cluster.LSN // while PostgreSQL runs; may lie in the middle of a record
	Replayed cluster.LSN // while PostgreSQL runs
	Timeline cluster.Timeline
}

// WALEnd tells where the node's WAL ends and on which timeline: the largest of
// received, replayed and what lies intact in pg_wal (read record by record, so
// a restart that reset the received position hides nothing: trap T2). It means
// something only when nothing can be added: without a walreceiver, or with
// PostgreSQL stopped; otherwise ErrReceiverRuns. It never says less than has been
// replayed, nor more than was received.
func (i *Instance) WALEnd(ctx context.Context) (cluster.LSN, cluster.Timeline, error) {
	w, err := i.WALTail(ctx)
	return w.End, w.Timeline, err
}

// WALTail is WALEnd in detail. A standby that received a part of a record more
// than its peer has not diverged by it: nobody can have acknowledged it, and
// recovery ends at Complete.
func (i *Instance) WALTail(ctx context.Context) (WALTail, error) {
	w, err := i.walTail(ctx)
	if err != nil {
		return WALTail{}, fmt.Errorf("find end of WAL: %w", err)
	}
	return w, nil
}

func (i *Instance) walTail(ctx context.Context) (WALTail, error) {
	var w WALTail
	st, err := i.sup.Status(ctx)
	if err != nil {
		return w, err
	}
	if !st.Running && !st.TreeEmpty {
		return w, errors.New("processes of PostgreSQL still live")
	}
	if m, err := i.recovering(); err != nil {
		return w, err
	} else if m != nil && st.Running {
		return i.replayedTail(ctx, m)
	}
	if st.Running {
		pids, err := i.receivers(st.PID)
		if err != nil {
			return w, err
		}
		if len(pids) > 0 {
			return w, fmt.Errorf("%w (pid %d)", ErrReceiverRuns, pids[0])
		}
		if w.Received, w.Replayed, err = i.standbyPositions(ctx); err != nil {
			return w, err
		}
	}
	c, err := ReadControl(i.cfg.DataDir)
	if err != nil {
		return w, err
	}
	return w, i.readTail(&c, &w)
}

func (i *Instance) standbyPositions(ctx context.Context) (received, replayed cluster.LSN, err error) {
	r, err := i.query(ctx, `select r, case when r then pg_last_wal_receive_lsn() else pg_current_wal_flush_lsn() end,
case when r then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end from (select pg_is_in_recovery() r) x`)
	if code(err) == "57P03" {
		return 0, 0, nil // not consistent yet: the files tell all there is
	}
	if err != nil {
		return 0, 0, err
	}
	return lsnOf(r[0][0][1]), lsnOf(r[0][0][2]), nil
}

// readTail walks along the records behind what has been replayed. That a standby
// has to reach MinRecovery before it is consistent does not mean that it has the
// WAL up to there: it is only where the walk would rather begin.
func (i *Instance) readTail(c *Control, w *WALTail) error {
	known := w.Replayed
	if !c.State.Primary() {
		known = max(known, c.MinRecovery)
	}
	r, err := newWALReader(i.cfg.DataDir, c)
	if err != nil {
		return err
	}
	end, tl, err := r.end(c.Redo, known)
	if err != nil {
		return err
	}
	if c.State.Primary() && tl == 0 && w.Replayed == 0 {
		return fmt.Errorf("no record at %s, where recovery would begin", c.Redo)
	}
	w.Complete = max(end, w.Replayed)
	w.End = max(w.Complete, w.Received)
	// A timeline's first file holds a copy of its parent's end.
	w.Timeline = i.timelineAt(max(tl, i.newestFile(r, w.End), c.Timeline), w.End)
	return nil
}

// newestFile is the newest timeline that has the segment in which end lies, when
// what lies there is real: a position that was received but holds no complete
// record yet.
func (i *Instance) newestFile(r *walReader, end cluster.LSN) cluster.Timeline {
	defer r.close()
	if end == 0 {
		return 0
	}
	last := end - 1
	page := last - last%cluster.LSN(r.page)
	for _, t := range r.timelines(last) {
		if r.loadPage(t, page) == nil {
			return t
		}
	}
	return 0
}
