package pgtest

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"manada/internal/cluster"
)

// Impersonate is a walsender's client that keeps nothing and says that it has
// flushed all that it was told of, and beyond bytes more. cfg says who it is and
// under which application_name; its parameter replication says of which kind.
// began is called when it streams. It returns when it is refused or ended, or
// with ctx.
func Impersonate(ctx context.Context, cfg *pgconn.Config, beyond uint64, began func()) error {
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Conn().Close()
	stop := context.AfterFunc(ctx, func() { c.Conn().Close() })
	defer stop()
	r, err := c.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return err
	}
	if len(r) == 0 || len(r[0].Rows) == 0 {
		return errors.New("IDENTIFY_SYSTEM says nothing")
	}
	at, err := cluster.ParseLSN(string(r[0].Rows[0][2]))
	if err != nil {
		return err
	}
	f := c.Frontend()
	f.SendQuery(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + string(r[0].Rows[0][2])})
	if err := f.Flush(); err != nil {
		return err
	}
	for {
		msg, err := f.Receive()
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyBothResponse:
			began()
			// At once: what waits lies before this, and nothing new may come.
			f.Send(&pgproto3.CopyData{Data: flushedTo(uint64(at) + beyond)})
			if err := f.Flush(); err != nil {
				return err
			}
		case *pgproto3.CopyData:
			f.Send(&pgproto3.CopyData{Data: flushedTo(told(m.Data) + beyond)})
			if err := f.Flush(); err != nil {
				return err
			}
		}
	}
}

// told is how far the WAL goes that a message of a walsender brings or names.
// Both kinds begin with a position; WAL itself follows in 'w', behind 25 bytes.
func told(b []byte) uint64 {
	at := binary.BigEndian.Uint64(b[1:9])
	if b[0] == 'w' {
		at += uint64(len(b) - 25)
	}
	return at
}

// flushedTo is a standby's status: written, flushed and replayed up to there.
func flushedTo(lsn uint64) []byte {
	b := []byte{'r'}
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, lsn)
	}
	return append(binary.BigEndian.AppendUint64(b, 0), 0)
}
