package herd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/health"
	"manada/internal/pgconnect"
	"manada/internal/supervisor"
	"manada/internal/verb"
)

// awaitReady waits until a write through the proxy has been committed while a
// standby was waited for.
func (h *Herd) awaitReady(ctx context.Context, o Options) error {
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	wait, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	said := ""
	for {
		why := h.tryWrite(wait)
		if why == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wait.Err() != nil {
			return &Hinted{fmt.Errorf("the herd runs but is not ready after %s: %w; %s", o.Patience, why, h.trouble()),
				"manada status --dir " + h.Dir + "  says more;  manada up  goes on waiting"}
		}
		if err := h.allRun(); err != nil {
			return err
		}
		if line := firstLine(why.Error()); line != said {
			said = line
			o.Say("waiting: %s", line)
		}
		select {
		case <-wait.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// allRun says which host has ended, with its last words.
func (h *Herd) allRun() error {
	for _, x := range h.Hosts {
		if !x.Running() {
			return fmt.Errorf("host %s ended: %s", x.Name, lastLines(filepath.Join(x.Cfg.LogDir(), "run.log")))
		}
	}
	return nil
}

// tryWrite commits through the proxy and returns why that does not count yet.
// The status is asked before and after: the epoch that was synchronous before
// is the one that took the write.
func (h *Herd) tryWrite(ctx context.Context) error {
	before, err := h.Status(ctx)
	if err != nil {
		return errors.New("no agent answers yet")
	}
	if err := synchronous(before); err != nil {
		return err
	}
	if err := h.voters(before); err != nil {
		return err
	}
	uri, err := h.URI(URIOptions{})
	if err != nil {
		return err
	}
	one, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := write(one, uri); err != nil {
		return fmt.Errorf("a write through the proxy: %w", err)
	}
	after, err := h.Status(ctx)
	if err == nil && after.Epoch != before.Epoch {
		return errors.New("the primary has changed")
	}
	if err == nil {
		err = synchronous(after)
	}
	return err
}

// voters wants every store host to have its vote: with two of three the loss of
// a host would stop the herd.
func (h *Herd) voters(s cluster.Status) error {
	want := 0
	for _, x := range h.Hosts {
		if x.Cfg.Has(config.Store) {
			want++
		}
	}
	if s.Store == nil || s.Store.Voters < want || s.Store.Up < want {
		return fmt.Errorf("%s is the primary and %s follows; not every host has its vote yet", s.Primary, strings.Join(s.Sync, ", "))
	}
	return nil
}

func synchronous(s cluster.Status) error {
	if s.Primary == "" {
		return errors.New("no primary yet: " + strings.TrimPrefix(health.Why(s), "no primary: "))
	}
	if s.K == 0 || len(s.Sync) == 0 {
		return fmt.Errorf("%s is the primary, no synchronous standby yet: %s", s.Primary, health.Why(s))
	}
	return nil
}

// write commits a transaction that leaves nothing behind but WAL.
func write(ctx context.Context, uri string) error {
	c, err := pgconnect.Open(ctx, pgconnect.Session{Conninfo: uri, Name: "manada up"})
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "select pg_logical_emit_message(true, 'manada', 'up')").ReadAll()
	return err
}

// Status asks a host for the status of the herd.
func (h *Herd) Status(ctx context.Context) (cluster.Status, error) {
	var s cluster.Status
	err := h.call(ctx, verb.Status, &s)
	return s, err
}

// trouble names the processes that do not stay up, with their last words.
func (h *Herd) trouble() string {
	var lines []string
	for _, x := range h.Hosts {
		st, err := x.Processes()
		if err != nil {
			lines = append(lines, fmt.Sprintf("host %s does not run", x.Name))
			continue
		}
		for _, c := range st.Children {
			if c.State != supervisor.Running || c.Restarts > 0 {
				lines = append(lines, fmt.Sprintf("%s of %s: %s, %d restarts, %s: %s", c.Name, x.Name, c.State, c.Restarts, c.LastExit, c.LastLine))
			}
		}
	}
	if len(lines) == 0 {
		return "every process runs; their logs are in " + h.File.Data + "/*/log"
	}
	return strings.Join(lines, "\n  ")
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
