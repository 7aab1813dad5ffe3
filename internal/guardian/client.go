package guardian

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// Client talks to a guardian. Every call dials anew, so a guardian that was
// replaced meanwhile is found again; every call has a deadline of its own
// besides the caller's. Safe for concurrent use.
type Client struct {
	path string
	// Timeout bounds each call; default 2 s. Start waits for the fork only.
	Timeout time.Duration
}

// NewClient makes a client of the guardian that serves this socket (SocketPath).
func NewClient(path string) *Client { return &Client{path: path, Timeout: 2 * time.Second} }

// ErrGone wraps every failure to reach the guardian: Ensure starts a new one,
// which adopts the postmaster.
var ErrGone = errors.New("guardian does not answer")

func (c *Client) call(ctx context.Context, q request) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return Status{}, fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer conn.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return Status{}, fmt.Errorf("%w: send %s: %w", ErrGone, q.Op, err)
	}
	var r response
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return Status{}, fmt.Errorf("%w: read answer to %s: %w", ErrGone, q.Op, err)
	}
	if r.Error != "" {
		return r.Status, errors.New(r.Error)
	}
	return r.Status, nil
}

// Status asks for the status of now.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return c.call(ctx, request{Op: "status"})
}

// Start forks a postmaster; it does not wait until it accepts connections.
func (c *Client) Start(ctx context.Context, s StartSpec) (Status, error) {
	return c.call(ctx, request{Op: "start", Start: &s})
}

// Stop signals the postmaster and returns; see WaitEmpty.
func (c *Client) Stop(ctx context.Context, m StopMode) error {
	_, err := c.call(ctx, request{Op: "stop", Mode: m})
	return err
}

// KillTree sends SIGKILL to all of PostgreSQL and returns; see WaitEmpty.
func (c *Client) KillTree(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: "kill_tree"})
	return err
}

// SetBeats says to whom and as whom the guardian beats.
func (c *Client) SetBeats(ctx context.Context, b BeatConfig) error {
	_, err := c.call(ctx, request{Op: "beats", Beats: &b})
	return err
}

// Quit ends a guardian that has no postmaster.
func (c *Client) Quit(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: "quit"})
	return err
}

// Event is a status as it changed, or the error with which the guardian went away.
type Event struct {
	Status Status
	Err    error
}

// Watch streams the status, first the one of now, until ctx ends. A lost
// guardian is told once as an Event with Err; the stream resumes when a new
// one answers. The reader must keep up: the channel holds few events.
func (c *Client) Watch(ctx context.Context) <-chan Event {
	ch := make(chan Event, 8)
	go func() {
		defer close(ch)
		told := false
		for ctx.Err() == nil {
			err := c.watchOnce(ctx, ch, &told)
			if !told && ctx.Err() == nil {
				told = true
				select {
				case ch <- Event{Err: err}:
				case <-ctx.Done():
				}
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return ch
}

func (c *Client) watchOnce(ctx context.Context, ch chan<- Event, told *bool) error {
	conn, err := (&net.Dialer{Timeout: c.Timeout}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(request{Op: "watch"}); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	in, seq := bufio.NewReader(conn), uint64(0)
	for first := true; ; first = false {
		// The guardian speaks every second; silence means that it hangs.
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		line, err := in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		var r response
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("read guardian's status: %w", err)
		}
		*told = false
		if !first && r.Status.Seq == seq {
			continue
		}
		seq = r.Status.Seq
		select {
		case ch <- Event{Status: r.Status}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// WaitEmpty waits until no postmaster runs and its tree is verified empty.
func (c *Client) WaitEmpty(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for e := range c.Watch(ctx) {
		if e.Err == nil && !e.Status.Running && e.Status.TreeEmpty {
			return nil
		}
	}
	return fmt.Errorf("wait for the end of postgres: %w", context.Cause(ctx))
}
