package postgres

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pgconnect"
)

// session is a connection that is opened when needed and kept. Commits of it
// never wait for a standby (synchronous_commit=local), so that waiting commits
// cannot lock us out (finding M12).
type session struct {
	name string
	mu   sync.Mutex
	conn *pgconn.PgConn
}

func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

// drop closes without ceremony; the mutex is held.
func (s *session) drop() {
	if s.conn != nil {
		s.conn.Conn().Close() // no Terminate message: the server may hang
		s.conn = nil
	}
}

// connect opens a local superuser connection by peer authentication.
func (i *Instance) connect(ctx context.Context, name, syncCommit string) (*pgconn.PgConn, error) {
	more := map[string]string{"synchronous_commit": syncCommit}
	if name == furnishSession || name == passwordSession {
		maps.Copy(more, unlogged)
	}
	return pgconnect.Open(ctx, pgconnect.Session{Conninfo: pgconnect.Local(i.socketDir, i.cfg.Port, cluster.RoleSuperuser), Name: name, More: more})
}

// Sessions that write verifiers of passwords.
const (
	furnishSession  = "manada:furnish"
	passwordSession = "manada:passwords"
)

// unlogged are the settings of a session whose statements PostgreSQL's log must
// not show. They are in force from its first message on: what the log shows of a
// message is decided before its first statement runs.
var unlogged = map[string]string{
	"log_statement": "none", "log_duration": "off", "log_min_error_statement": "panic",
	"log_min_duration_statement": "-1", "log_min_duration_sample": "-1", "log_transaction_sample_rate": "0",
}

// rows of one result, as text; nil bytes are NULL.
type rows [][][]byte

// query runs one or more statements in one round trip on the persistent
// session and returns a result for each. After an error that is not the
// server's answer the session is thrown away; a session that somebody ended
// meanwhile is replaced once.
func (i *Instance) query(ctx context.Context, sql string) ([]rows, error) {
	return i.queryOn(ctx, &i.main, sql)
}

func (i *Instance) queryOn(ctx context.Context, s *session, sql string) ([]rows, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for attempt := 0; ; attempt++ {
		fresh := s.conn == nil || s.conn.IsClosed()
		if fresh {
			s.drop()
			c, err := i.connect(ctx, s.name, "local")
			if err != nil {
				return nil, err
			}
			s.conn = c
		}
		out, err := run(ctx, s.conn, sql)
		if err == nil {
			return out, nil
		}
		var pg *pgconn.PgError
		if errors.As(err, &pg) && !fatalCode(pg.Code) {
			return nil, err
		}
		s.drop()
		// Only a statement that never reached the server may be sent again.
		if fresh || attempt > 0 || ctx.Err() != nil || !pgconn.SafeToRetry(err) && !closedByServer(pg) {
			return nil, err
		}
	}
}

// closedByServer: an idle session was ended by an administrator or a restart,
// and told so before our statement was run.
func closedByServer(pg *pgconn.PgError) bool { return pg != nil && pg.Code == "57P01" }

func fatalCode(code string) bool { return code == "57P01" || code == "57P02" || code == "57P03" }

func run(ctx context.Context, c *pgconn.PgConn, sql string) ([]rows, error) {
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	out := make([]rows, len(res))
	for n, r := range res {
		if r.Err != nil {
			return nil, r.Err
		}
		out[n] = r.Rows
	}
	return out, nil
}

// value runs a statement and gives the first column of the first row, "" for
// none or NULL.
func (i *Instance) value(ctx context.Context, sql string) (string, error) {
	r, err := i.query(ctx, sql)
	if err != nil {
		return "", err
	}
	last := r[len(r)-1]
	if len(last) == 0 || len(last[0]) == 0 {
		return "", nil
	}
	return string(last[0][0]), nil
}

// literal quotes a string for SQL (standard_conforming_strings is on).
func literal(s string) string {
	out := make([]byte, 0, len(s)+2)
	out = append(out, '\'')
	for n := range len(s) {
		if s[n] == '\'' {
			out = append(out, '\'')
		}
		out = append(out, s[n])
	}
	return string(append(out, '\''))
}

func lsnOf(b []byte) cluster.LSN {
	l, _ := cluster.ParseLSN(string(b))
	return l
}

func intOf(b []byte) int64 {
	n, _ := strconv.ParseInt(string(b), 10, 64)
	return n
}

func boolOf(b []byte) bool { return string(b) == "t" }

// code of a server's error, "" when it is not one.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
