package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/test/measure"
)

// outcome is what a client was told of a row.
type outcome uint8

const (
	acked   outcome = iota + 1
	refused         // an error that says that nothing was kept
	unknown         // the answer was lost, or says that nobody knows
)

type key struct{ client, seq int }

// ledger is what all clients were told, and when.
type ledger struct {
	mu      sync.Mutex
	rows    map[key]outcome
	acks    []time.Time
	errs    map[string]int // by kind of client and code
	lost    map[string]int // sessions that ended, by kind of client
	wrong   []string       // what must never be
	refusal []string       // some of the errors, for the report
}

func newLedger() *ledger {
	return &ledger{rows: map[key]outcome{}, errs: map[string]int{}, lost: map[string]int{}}
}

func (l *ledger) put(client int, o outcome, seqs ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range seqs {
		l.rows[key{client, s}] = o
	}
	if o == acked {
		l.acks = append(l.acks, time.Now())
	}
}

// violation is something that must never be.
func (l *ledger) violation(format string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 50 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, a...))
	}
}

// failed counts an error and says what is known of the rows behind it.
func (l *ledger) failed(kind, what string, err error) (o outcome) {
	code, o := judge(err)
	if code == "57014" {
		l.violation("a statement of %s was cancelled, and nobody asked for it: %v", kind, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs[kind+" "+what+" "+code]++
	if len(l.refusal) < 20 {
		l.refusal = append(l.refusal, fmt.Sprintf("%s %s: %v", kind, what, err))
	}
	return o
}

func (l *ledger) ended(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost[kind]++
}

// judge: 08007 says that nobody knows; with a code of another kind PostgreSQL or
// the proxy promises that nothing was kept. Without one the client knows nothing.
func judge(err error) (code string, o outcome) {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "08007":
		return pg.Code, unknown
	case errors.As(err, &pg):
		return pg.Code, refused
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "cut", unknown
	}
	return "lost", unknown
}

// seen are the errors so far: how often which.
func (l *ledger) seen() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.errs)
}

// sessionsLost are those that ended so far, by kind of client.
func (l *ledger) sessionsLost() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.lost)
}

func (l *ledger) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// hold is the longest time without an acknowledgement since then.
func (l *ledger) hold(since time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return measure.Gap(l.acks, since)
}

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	n := map[outcome]int{}
	for _, o := range l.rows {
		n[o]++
	}
	fmt.Fprintf(&b, "rows: %d acknowledged, %d refused, %d unknown\n", n[acked], n[refused], n[unknown])
	for _, k := range slices.Sorted(maps.Keys(l.errs)) {
		fmt.Fprintf(&b, "  error %s: %d\n", k, l.errs[k])
	}
	for _, k := range slices.Sorted(maps.Keys(l.lost)) {
		fmt.Fprintf(&b, "  sessions ended, %s: %d\n", k, l.lost[k])
	}
	return b.String()
}

// check compares what is there with what was told.
func (l *ledger) check(ctx context.Context, dsn string) error {
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	there := map[key]bool{}
	r := c.ExecParams(ctx, "select client, seq, tag from soak.ledger", nil, nil, nil, nil)
	for r.NextRow() {
		var k key
		v := r.Values()
		if _, err := fmt.Sscan(string(v[0]), &k.client); err != nil {
			return err
		}
		if _, err := fmt.Sscan(string(v[1]), &k.seq); err != nil {
			return err
		}
		there[k] = true
		if want := tag(k.client); string(v[2]) != want {
			l.violation("row %v was written with the setting of %s", k, v[2])
		}
	}
	if _, err := r.Close(); err != nil {
		return err
	}
	l.compare(there)
	return nil
}

// compare holds the rows that are there against what was told.
func (l *ledger) compare(there map[key]bool) {
	l.mu.Lock()
	rows := maps.Clone(l.rows)
	l.mu.Unlock()
	for k, o := range rows {
		switch {
		case o == acked && !there[k]:
			l.violation("row %v was acknowledged and is not there", k)
		case o == refused && there[k]:
			l.violation("row %v was refused and is there", k)
		}
	}
	for k := range there {
		if rows[k] == 0 {
			l.violation("row %v is there and nobody wrote it", k)
		}
	}
}
