package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"manada/internal/durable"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
)

// SetSync renders synchronous_standby_names, reloads, and returns the end of the
// WAL (insert position) read after a fresh command sees the new value. That is
// no proof that commits wait: see ProbeInForce (finding C5). On a standby or
// when nothing runs the position is 0.
func (i *Instance) SetSync(ctx context.Context, s cluster.SyncSetting) (cluster.LSN, error) {
	if !s.IsHold() {
		if err := i.markServed(); err != nil {
			return 0, err
		}
	}
	i.confMu.Lock()
	err := durable.Write(i.run(syncFile), []byte(syncConf(s)), durable.Options{})
	i.confMu.Unlock()
	if err != nil {
		return 0, err
	}
	st, err := i.sup.Status(ctx)
	if err != nil || !st.Running {
		return 0, err
	}
	if err := i.reloadIfRunning(ctx); err != nil {
		return 0, err
	}
	last := ""
	err = poll(ctx, 5*time.Millisecond, func() (bool, error) {
		r, err := i.query(ctx, "select setting, sourcefile from pg_settings where name = 'synchronous_standby_names'")
		if err != nil || len(r[0]) == 0 {
			return false, err
		}
		last = string(r[0][0][0]) + " from " + string(r[0][0][1])
		return string(r[0][0][0]) == s.String() && string(r[0][0][1]) == i.run(syncFile), nil
	})
	if err != nil {
		return 0, fmt.Errorf("set synchronous_standby_names to %q: %w (in force: %s)", s.String(), err, last)
	}
	v, err := i.value(ctx, "select case when not pg_is_in_recovery() then pg_current_wal_insert_lsn() end")
	if err != nil || v == "" {
		return 0, err
	}
	return cluster.ParseLSN(v)
}

func (i *Instance) markServed() error {
	if m, err := i.readMarks(); err != nil || m.Served {
		return err
	}
	return i.updateMarks(func(m *marks) { m.Served = true })
}

// inForceProbe is the one commit of ours that waits, on a connection of its own.
type inForceProbe struct {
	mu   sync.Mutex
	conn *pgconn.PgConn
	pid  uint32
	done chan error
}

func (p *inForceProbe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		// Not cancelled: the backend goes on waiting until it is released; the
		// row is ours and nobody was told that it is there.
		p.conn.Conn().Close()
	}
}

// ProbeInForce proves that commits wait: it commits a tiny
// message with synchronous_commit=on and looks for it in the wait "SyncRep". What
// pg_settings says proves nothing, because a flag in shared memory that only
// the checkpointer sets decides (finding C5). It returns false when the commit
// came through without waiting, and an error when ctx ended before either was
// seen. A commit of an earlier probe that still waits is proof as well.
func (i *Instance) ProbeInForce(ctx context.Context) (bool, error) {
	p := &i.inForce
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		if err := i.startProbe(ctx, p); err != nil {
			return false, fmt.Errorf("probe synchronous commit: %w", err)
		}
	} else {
		select {
		case <-p.done: // released since: it tells nothing about now
			p.conn.Conn().Close()
			p.conn = nil
			if err := i.startProbe(ctx, p); err != nil {
				return false, fmt.Errorf("probe synchronous commit: %w", err)
			}
		default:
		}
	}
	inForce := false
	err := poll(ctx, 3*time.Millisecond, func() (bool, error) {
		select {
		case err := <-p.done:
			p.conn.Conn().Close()
			p.conn = nil
			return true, err
		default:
		}
		v, err := i.value(ctx, fmt.Sprintf("select wait_event from pg_stat_activity where pid = %d and wait_event = 'SyncRep'", p.pid))
		inForce = v == "SyncRep"
		return inForce, err
	})
	if err != nil {
		return false, fmt.Errorf("probe synchronous commit: %w", err)
	}
	return inForce, nil
}

func (i *Instance) startProbe(ctx context.Context, p *inForceProbe) error {
	c, err := i.connect(ctx, "manada:in-force", "on")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	p.conn, p.pid, p.done = c, c.PID(), done
	// Detached: the commit waits for as long as it must, and is never cancelled.
	go func() {
		_, err := run(context.WithoutCancel(ctx), c, emitWAL)
		done <- err
	}()
	return nil
}
