package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A primary that is stopped in order ends its WAL segment first, since it is
// archived: PostgreSQL writes zeros up to the segment's end, and the stop waits
// until the standbys have flushed them, up to 16 MB that are an outage. What is
// written before, while clients go on, is not waited for.
const (
	FillMost  = 256 << 10              // bytes that are left at the least, right before a stop
	FillFirst = 2 << 20                // and before a checkpoint, which makes the next segment's file then
	fillAhead = 500 * time.Millisecond // what clients write in this time is left, too
	fillPiece = 256 << 10              // bytes at a time: no commit waits behind more
	fillLeast = 8 << 10                // less is not worth a message
	fillRate  = 50 * time.Millisecond  // what clients write is measured for this long at the least
	fillPause = 2 * time.Millisecond   // between two looks at what the standbys have
)

// fillMessage is written by transactions that consist of it: they are flushed at
// once, here only, and replaying them does nothing.
const fillMessage = "select pg_logical_emit_message(true, 'manada', repeat('0', %d));\n"

// fillState is where WAL is inserted, what is left of its segment, the size of a
// segment, up to where everybody has flushed who is waited for, and whether
// nothing may be written: no segment is ended at a stop when nothing is archived,
// and who decodes WAL could see the messages (slots of standbys, from PostgreSQL
// 16 on, are not known here).
const fillState = `select w - '0/0', s - (w - '0/0') %% s, s, coalesce((select min(flush_lsn) from pg_stat_replication
  where application_name = %s or sync_state in ('sync', 'quorum')), w) - '0/0',
 current_setting('archive_mode') = 'off' or exists (select from pg_replication_slots where slot_type = 'logical')
  or current_setting('wal_level') = 'logical' and current_setting('server_version_num')::int >= 160000
 from pg_current_wal_insert_lsn() w, pg_size_bytes(current_setting('wal_segment_size')) s`

// filling is one look of FillSegment.
type filling struct {
	at                        time.Time
	end, left, size, standbys int64
	forbidden                 bool
}

// FillSegment fills the WAL segment of this primary nearly to its end, in pieces,
// each when the one before has been flushed by the successor, whose walsender has
// that name, and by the members of sync. So many bytes are left free, and what
// clients are going to write. It gives the bytes that it has written, 0 when there is
// no room or nothing may be written. It ends with ctx, wherever it is then, and writes
// no more than a segment.
func (i *Instance) FillSegment(ctx context.Context, successor string, free int64) (int64, error) {
	written, err := i.fillSegment(ctx, fmt.Sprintf(fillState, literal(successor)), free)
	if err != nil {
		return written, fmt.Errorf("fill the WAL segment: %w", err)
	}
	return written, nil
}

func (i *Instance) fillSegment(ctx context.Context, state string, free int64) (written int64, err error) {
	c, err := i.connect(ctx, "manada:fill", "local")
	if err != nil {
		return 0, err
	}
	defer c.Conn().Close()
	first, err := fillLook(ctx, c, state)
	for now, after := first, int64(0); err == nil && !now.forbidden && written < now.size; {
		pause := fillPause
		if took := now.at.Sub(first.at); took < fillRate {
			pause = fillRate
		} else if piece := now.piece(first.end+written, took, free); piece < fillLeast {
			break
		} else if now.standbys >= after {
			if now, err = fillLook(ctx, c, fmt.Sprintf(fillMessage, piece)+state); err == nil {
				written, after = written+piece, now.end
			}
			continue
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(pause):
			now, err = fillLook(ctx, c, state)
		}
	}
	return written, err
}

// piece is how much may be written now: what clients are going to write stays
// free. In the time that it took they have written what is behind from.
func (f *filling) piece(from int64, took time.Duration, free int64) int64 {
	clients := float64(f.end-from) / took.Seconds() // bytes a second
	return min(fillPiece, f.left-free-int64(clients*fillAhead.Seconds()))
}

// fillLook runs what comes before fillState, and that.
func fillLook(ctx context.Context, c *pgconn.PgConn, sql string) (filling, error) {
	f := filling{}
	res, err := run(ctx, c, sql)
	if err != nil {
		return f, err
	}
	row := res[len(res)-1][0]
	for k, p := range []*int64{&f.end, &f.left, &f.size, &f.standbys} {
		if *p, err = strconv.ParseInt(string(row[k]), 10, 64); err != nil {
			return f, err
		}
	}
	f.at, f.forbidden = time.Now(), boolOf(row[4])
	return f, nil
}
