package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"manada/internal/durable"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pgconnect"
)

// Source is the open leader from which a directory is made anew.
type Source struct {
	Endpoint
	Timeline cluster.Timeline // of its epoch, from the term
	Epoch    uint64
}

// Progress is told how far a long copy is, in bytes; total is an estimate.
type Progress func(done, total int64)

// ErrSource: the source is not (or no longer) the primary that it should be.
var ErrSource = errors.New("source is not fit")

// checkSource asks the source whether it is a primary of the expected timeline,
// of our database system, and whether its pg_control says so: pg_rewind
// believes pg_control, and right after a promotion it still names the old
// timeline ("no rewind required", trap T10). Then a CHECKPOINT is asked for.
func (i *Instance) checkSource(ctx context.Context, s Source, name, systemID string) error {
	c, err := i.connectSource(ctx, s, name)
	if err != nil {
		return fmt.Errorf("ask source %s: %w", s.Node, err)
	}
	defer c.Conn().Close()
	const ask = "select pg_is_in_recovery(), (pg_control_checkpoint()).timeline_id, (pg_control_system()).system_identifier"
	for attempt := 0; ; attempt++ {
		r, err := run(ctx, c, ask)
		if err != nil {
			return fmt.Errorf("ask source %s: %w", s.Node, err)
		}
		row := r[0][0]
		switch tl := cluster.Timeline(intOf(row[1])); {
		case boolOf(row[0]):
			return fmt.Errorf("%w: %s is a standby", ErrSource, s.Node)
		case systemID != "" && string(row[2]) != systemID:
			return fmt.Errorf("%w: %s belongs to database system %s, we to %s", ErrSource, s.Node, row[2], systemID)
		case tl == s.Timeline:
			return nil
		case tl > s.Timeline || attempt > 0:
			return fmt.Errorf("%w: pg_control of %s is on timeline %d, not %d", ErrSource, s.Node, tl, s.Timeline)
		}
		if _, err := run(ctx, c, "checkpoint"); err != nil {
			return fmt.Errorf("ask source %s for a checkpoint: %w", s.Node, err)
		}
	}
}

// connectSource logs in at the source and nowhere else: what answers must show
// the certificate of that node.
func (i *Instance) connectSource(ctx context.Context, s Source, name string) (*pgconn.PgConn, error) {
	if len(s.Addrs) == 0 {
		return nil, fmt.Errorf("connect to %s: no address of it is known", s.Node)
	}
	dsn := fmt.Sprintf("host=%s port=%d user=%s dbname=%s connect_timeout=5 require_auth=scram-sha-256",
		conninfoQuote(strings.Join(s.Addrs, ",")), s.Port, cluster.RoleRewind, cluster.Database)
	if i.cfg.ClientTLS != nil {
		dsn += " sslmode=require channel_binding=require"
	} else {
		dsn += " sslmode=disable"
	}
	q := pgconnect.Session{Conninfo: dsn, Password: i.passwordsNow().Rewind, Name: name, Patience: 5 * time.Second}
	if i.cfg.ClientTLS != nil {
		q.TLS = i.cfg.ClientTLS(s.Node)
	}
	return pgconnect.Open(ctx, q)
}

// withPassfile writes a password file for one run of a program and removes it.
func (i *Instance) withPassfile(what, node, role, password string, f func(path string) error) error {
	path := i.run(what + ".pgpass")
	if err := durable.Write(path, []byte(passfileLine(node, role, password)), durable.Options{}); err != nil {
		return err
	}
	defer os.Remove(path)
	return f(path)
}

var progressLine = regexp.MustCompile(`(\d+)/(\d+) kB`)

// runWithProgress runs a program of PostgreSQL that writes its progress to
// stderr, and returns all it said but that.
func runWithProgress(cmd *exec.Cmd, progress Progress) (string, error) {
	w := &progressWriter{report: progress}
	cmd.Stdout, cmd.Stderr = w, w
	err := cmd.Run()
	w.line()
	return tail(w.text.Bytes()), err
}

type progressWriter struct {
	report     Progress
	part, text bytes.Buffer
}

func (w *progressWriter) Write(b []byte) (int, error) {
	for _, c := range b {
		if c == '\n' || c == '\r' {
			w.line()
		} else {
			w.part.WriteByte(c)
		}
	}
	return len(b), nil
}

func (w *progressWriter) line() {
	s := strings.TrimSpace(w.part.String())
	w.part.Reset()
	if m := progressLine.FindStringSubmatch(s); m != nil {
		done, _ := strconv.ParseInt(m[1], 10, 64)
		total, _ := strconv.ParseInt(m[2], 10, 64)
		if w.report != nil {
			w.report(done<<10, total<<10)
		}
	} else if s != "" && w.text.Len() < 64<<10 {
		w.text.WriteString(s + "\n")
	}
}
