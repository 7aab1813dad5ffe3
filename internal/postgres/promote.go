package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"manada/internal/cluster"
)

// Promote makes this standby the primary of the epoch, on exactly the allocated
// timeline (finding M7), and returns the LSN at which it forks from its parent.
// The receiver must be gone and the placeholder in force. It is a point of no
// return: the marks on disk are written first, and it never gives up but when
// ctx ends, or PostgreSQL does. Called again after an interruption it goes on;
// on a primary of that timeline it only tells the fork.
func (i *Instance) Promote(ctx context.Context, epoch uint64, timeline cluster.Timeline) (cluster.LSN, error) {
	var fork cluster.LSN
	err := i.alone("promotion", func() (err error) {
		fork, err = i.promote(ctx, epoch, timeline)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("promote to timeline %d: %w", timeline, err)
	}
	return fork, nil
}

func (i *Instance) promote(ctx context.Context, epoch uint64, timeline cluster.Timeline) (cluster.LSN, error) {
	begun := time.Now()
	st, err := i.sup.Status(ctx)
	if err != nil {
		return 0, err
	}
	if !st.Running {
		return 0, errors.New("postgres does not run")
	}
	recovering, err := i.value(ctx, "select pg_is_in_recovery()")
	if err != nil {
		return 0, err
	}
	if recovering == "t" {
		if err := i.mayPromote(ctx, st.PID); err != nil {
			return 0, err
		}
		if err := i.aboutToPromote(ctx, timeline); err != nil {
			return 0, err
		}
		if err := i.SetLedEpoch(epoch); err != nil {
			return 0, err
		}
		if err := i.fillTimelines(timeline); err != nil {
			return 0, err
		}
		if _, err := i.value(ctx, "select pg_promote(false)"); err != nil {
			return 0, err
		}
		if err := i.awaitPrimary(ctx); err != nil {
			return 0, err
		}
	}
	fork, err := i.forkOf(ctx, timeline)
	if err == nil {
		i.log.Info("promoted", "epoch", epoch, "timeline", timeline, "fork_lsn", fork.String(), "ms", time.Since(begun).Milliseconds())
	}
	return fork, err
}

func (i *Instance) mayPromote(ctx context.Context, postmaster int) error {
	pids, err := i.receivers(postmaster)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("%w (pid %d)", ErrReceiverRuns, pids[0])
	}
	v, err := i.value(ctx, "show synchronous_standby_names")
	if err != nil {
		return err
	}
	if v == "" {
		return errors.New("synchronous_standby_names is empty: the new primary would acknowledge alone")
	}
	return nil
}

// awaitPrimary waits for the end of recovery and ends sessions that hold it up.
func (i *Instance) awaitPrimary(ctx context.Context) error {
	next := time.Now()
	return poll(ctx, 5*time.Millisecond, func() (bool, error) {
		v, err := i.value(ctx, "select pg_is_in_recovery()")
		if err != nil || v == "f" {
			return v == "f", err
		}
		if time.Now().After(next) {
			next = time.Now().Add(20 * time.Millisecond)
			if _, err := i.EndBlockingSessions(ctx); err != nil {
				return false, err
			}
		}
		return false, nil
	})
}

// endBlockingSQL ends client sessions that hold back replay: while the startup
// process waits for a conflict, all that have a snapshot or a transaction, or
// hold what it waits for. No row: nothing holds it back.
const endBlockingSQL = `
select s.pid, (select count(pg_terminate_backend(b.pid)) from pg_stat_activity b
  where b.backend_type = 'client backend' and b.pid <> pg_backend_pid()
    and (b.backend_xmin is not null or b.xact_start is not null or b.pid = any (pg_blocking_pids(s.pid))))
from pg_stat_activity s where s.backend_type = 'startup'
  and (s.wait_event like 'RecoveryConflict%' or s.wait_event_type in ('Lock', 'BufferPin'))`

// EndBlockingSessions ends sessions on a standby that hold back replay at this
// moment, and says how many (finding M5: one reader delayed a promotion by
// 29.7 s). None are ended while replay goes on.
func (i *Instance) EndBlockingSessions(ctx context.Context) (int, error) {
	r, err := i.query(ctx, endBlockingSQL)
	if err != nil {
		return 0, fmt.Errorf("end sessions that hold back replay: %w", err)
	}
	if len(r[0]) == 0 {
		return 0, nil
	}
	// The startup process sleeps up to a second between two looks at the
	// conflict; a signal wakes it (SIGHUP only makes it read its configuration).
	if pid := int(intOf(r[0][0][0])); i.isKind(pid, "startup") {
		_ = syscall.Kill(pid, syscall.SIGHUP)
	}
	n := int(intOf(r[0][0][1]))
	if n > 0 {
		i.log.Info("sessions that held back replay ended", "sessions", n)
	}
	return n, nil
}

// forkOf verifies the timeline of a primary and reads where it began.
func (i *Instance) forkOf(ctx context.Context, want cluster.Timeline) (cluster.LSN, error) {
	v, err := i.value(ctx, "select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)")
	if err != nil {
		return 0, err
	}
	if have := parseTimeline([]byte(v)); have != want {
		return 0, fmt.Errorf("PostgreSQL is on timeline %d", have)
	}
	h, err := i.history(want)
	if err != nil {
		return 0, err
	}
	if len(h) == 0 {
		return 0, fmt.Errorf("%s names no parent", filepath.Base(i.historyPath(want)))
	}
	if err := CheckHistory(i.historyPath(want)); err != nil {
		return 0, err
	}
	return h[len(h)-1].at, nil
}

// WriteControl writes the control row of an epoch, flushed here and not waiting
// for any standby, and makes all that is needed for it first. Writing it again
// changes nothing but the nonce.
func (i *Instance) WriteControl(ctx context.Context, epoch uint64, node, nonce string) error {
	sql := trustedOnly + fmt.Sprintf("insert into manada.control (epoch, node, nonce) values (%d, %s, %s) on conflict (epoch) do update set node = excluded.node, nonce = excluded.nonce, at = now()",
		epoch, literal(node), literal(nonce))
	if _, err := i.Furnish(ctx, true); err != nil {
		return fmt.Errorf("write control row of epoch %d: %w", epoch, err)
	}
	if _, err := i.query(ctx, sql); err != nil {
		return fmt.Errorf("write control row of epoch %d: %w", epoch, err)
	}
	return nil
}

// emitWAL is a commit that leaves nothing behind but WAL, and needs nothing that
// could be missing.
const emitWAL = "select pg_logical_emit_message(true, 'manada', '')"

// Nudge writes a little WAL, flushed here and waiting for nobody, so that every
// standby has something to flush and to reply to.
func (i *Instance) Nudge(ctx context.Context) error {
	if _, err := i.query(ctx, emitWAL); err != nil {
		return fmt.Errorf("write a little WAL: %w", err)
	}
	return nil
}

// Checkpoint runs CHECKPOINT on a connection of its own, so that observations
// do not wait for it; run it in the background.
func (i *Instance) Checkpoint(ctx context.Context) error {
	c, err := i.connect(ctx, "manada:checkpoint", "local")
	if err == nil {
		_, err = run(ctx, c, "checkpoint")
		c.Conn().Close()
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// EndSenders ends walsenders by their backend pids (raising k: finding H4;
// before a switchover: M6). Pids that are no walsender's are left alone.
func (i *Instance) EndSenders(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		sql := fmt.Sprintf("select pg_terminate_backend(pid) from pg_stat_activity where pid = %d and backend_type = 'walsender'", pid)
		if _, err := i.query(ctx, sql); err != nil {
			return fmt.Errorf("end walsender %d: %w", pid, err)
		}
	}
	return nil
}
