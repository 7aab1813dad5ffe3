package pool

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"manada/internal/proxy/wire"
)

// Asker asks nodes on the proxy's own account, over one kept connection per node
// and database. It is not safe for concurrent use.
type Asker struct {
	Dialer    *Dialer
	User      string          // manada_proxy
	Passwords func() []string // those that may be right; nil when TLS authenticates the proxy
	Timeout   time.Duration   // of one query

	kept map[place]*Backend
}

type place struct{ addr, database string }

// maxAsked bounds a message of an answer, in bytes.
const maxAsked = 1 << 20

// Ask runs a query with parameters, all of them texts, in a database of the node at
// addr, and shows the rows, of n columns in text format; NULL is empty. After an
// error the next one begins with a new connection.
func (a *Asker) Ask(ctx context.Context, addr, database, sql string, params []string, n int, row func(cols []string) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	at := place{addr, database}
	b := a.kept[at]
	if b == nil {
		var err error
		if b, err = a.Dialer.openOwn(ctx, addr, own(a.User, a.Passwords, database)); err != nil {
			return err
		}
		if a.kept == nil {
			a.kept = map[place]*Backend{}
		}
		a.kept[at] = b
	}
	deadline, _ := ctx.Deadline()
	err := b.Conn.SetDeadline(deadline)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { b.Conn.SetDeadline(time.Unix(1, 0)) })
		err = b.ask(askMessages(sql, params), row, n)
		stop()
	}
	if err != nil {
		b.Conn.Close()
		delete(a.kept, at)
		return fmt.Errorf("ask %s at %s: %w", database, addr, err)
	}
	return nil
}

// Leave closes the connections to a database, or all when the name is empty.
func (a *Asker) Leave(database string) {
	for at, b := range a.kept {
		if database == "" || at.database == database {
			b.Conn.Close()
			delete(a.kept, at)
		}
	}
}

// askMessages ask with text parameters, for an answer in text.
func askMessages(sql string, params []string) []byte {
	return appendAsk(appendParse(nil, "", sql), "", params)
}

// appendParse prepares a statement under a name.
func appendParse(b []byte, name, sql string) []byte {
	return wire.AppendMessage(b, 'P', append(append(append([]byte(name), 0), sql...), 0, 0, 0))
}

// appendAsk has a prepared statement executed, and ends in a Sync.
func appendAsk(b []byte, name string, params []string) []byte {
	bind := append(append(make([]byte, 1, 128), name...), 0, 0, 0, 0, byte(len(params))) // no portal, text formats
	for _, value := range params {
		bind = binary.BigEndian.AppendUint32(bind, uint32(len(value)))
		bind = append(bind, value...)
	}
	b = wire.AppendMessage(b, 'B', append(bind, 0, 0))
	b = wire.AppendMessage(b, 'E', []byte{0, 0, 0, 0, 0})
	return wire.AppendMessage(b, wire.TypeSync, nil)
}
