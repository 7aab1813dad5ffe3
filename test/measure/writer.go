package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Table is where the writer's rows go.
const Table = "manada_written"

// Writer commits rows over several connections and remembers what was
// acknowledged. Start it, let things happen, Stop it.
type Writer struct {
	dsn    string
	conns  int
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	acks  []time.Time
	ids   []int64
	next  int64
	errs  map[string]int
	nErrs int
}

// Prepare makes the table anew.
func Prepare(ctx context.Context, dsn string) error {
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("prepare the writer: %w", err)
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "drop table if exists "+Table+"; create table "+Table+" (id bigint primary key, conn int, at timestamptz default clock_timestamp())").ReadAll()
	if err != nil {
		return fmt.Errorf("prepare the writer: %w", err)
	}
	return nil
}

// Start begins to write over four connections. The first id is first.
func Start(ctx context.Context, dsn string, first int64) *Writer {
	ctx, cancel := context.WithCancel(ctx)
	w := &Writer{dsn: dsn, conns: 4, cancel: cancel, next: first, errs: map[string]int{}}
	for n := range w.conns {
		w.wg.Go(func() { w.run(ctx, n) })
	}
	return w
}

func (w *Writer) run(ctx context.Context, n int) {
	for ctx.Err() == nil {
		if err := w.session(ctx, n); err != nil && ctx.Err() == nil {
			w.failed(err)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// session is one connection: rows are committed until it breaks.
func (w *Writer) session(ctx context.Context, n int) error {
	dial, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := pgconn.Connect(dial, w.dsn)
	if err != nil {
		return err
	}
	defer c.Conn().Close()
	for ctx.Err() == nil {
		id := w.take()
		// A commit that hangs is not given up: whether it is acknowledged late
		// is what is being asked.
		_, err := c.Exec(ctx, fmt.Sprintf("insert into %s (id, conn) values (%d, %d)", Table, id, n)).ReadAll()
		if err != nil {
			return err
		}
		w.acked(id)
	}
	return nil
}

func (w *Writer) take() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	return w.next
}

func (w *Writer) acked(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids = append(w.ids, id)
	w.acks = append(w.acks, time.Now())
}

func (w *Writer) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nErrs++
	text := err.Error()
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		text = pg.Code + " " + pg.Message
	}
	if i := strings.LastIndex(text, ": "); i >= 0 && len(text) > 120 {
		text = text[i+2:]
	}
	w.errs[text]++
}

// Acked is how many commits were acknowledged so far.
func (w *Writer) Acked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ids)
}

// WaitAcked waits until n more commits than now were acknowledged.
func (w *Writer) WaitAcked(ctx context.Context, n int) error {
	want := w.Acked() + n
	for w.Acked() < want {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for commits: %w (%v)", ctx.Err(), w.Errors())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// Next is the last id that was tried.
func (w *Writer) Next() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// Errors counts what clients saw, by text.
func (w *Writer) Errors() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for k, v := range w.errs {
		out[k] = v
	}
	return out
}

// Stop ends the writer and waits for its connections.
func (w *Writer) Stop() {
	w.cancel()
	w.wg.Wait()
}

// Outage is the longest interval between two acknowledged commits of which the
// later one came after since. Call it after Stop, or with commits flowing.
func (w *Writer) Outage(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Gap(w.acks, since)
}

// Gap is the longest interval between two of these moments of which the later
// one came after since.
func Gap(moments []time.Time, since time.Time) time.Duration {
	acks := slices.SortedFunc(slices.Values(moments), time.Time.Compare)
	var longest time.Duration
	for i := 1; i < len(acks); i++ {
		if acks[i].After(since) {
			longest = max(longest, acks[i].Sub(acks[i-1]))
		}
	}
	return longest
}

// ErrorCount is how many errors clients have seen.
func (w *Writer) ErrorCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nErrs
}

// Acknowledged are the ids so far.
func (w *Writer) Acknowledged() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ids)
}

// Lost names acknowledged ids that a node does not have. Call it after Stop.
func (w *Writer) Lost(ctx context.Context, dsn string) ([]int64, error) {
	return Missing(ctx, dsn, w.Acknowledged())
}

// Missing names those of the ids that a node does not have.
func Missing(ctx context.Context, dsn string, ids []int64) ([]int64, error) {
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("look for lost commits: %w", err)
	}
	defer c.Close(ctx)
	res, err := c.Exec(ctx, "/*NO LOAD BALANCE*/ select id from "+Table).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("look for lost commits: %w", err)
	}
	have := map[string]bool{}
	for _, r := range res[0].Rows {
		have[string(r[0])] = true
	}
	var lost []int64
	for _, id := range ids {
		if !have[fmt.Sprint(id)] {
			lost = append(lost, id)
		}
	}
	return lost, nil
}
