package supervisor

import (
	"context"
	"io"
	"log/slog"
	"syscall"
	"time"
)

// Child is one process to keep running. SIGTERM tells it that the host stops,
// SIGINT that it alone ends and is started again: an agent leaves PostgreSQL
// running then. SIGHUP means that the configuration changed.
type Child struct {
	Name    string   // "agent"; also the name of its log file
	Command []string // argv; the first is a path
	// StopWithin bounds the time from SIGTERM to SIGKILL; default 10 s.
	StopWithin time.Duration
	// Once is for a task that ends: it is started again only until it has ended
	// with status 0. Nobody waits for it.
	Once bool
}

// Config of a supervisor. Children start in their order and stop in the
// reverse one.
type Config struct {
	Children []Child
	LockFile string // flocked for life; holds pid and start time
	Socket   string // control socket; "" for none
	LogDir   string
	MaxSize  int64 // bytes of one log file before it is cut; 0: never
	Keep     int   // older log files kept
	// Mirror receives every line of every child with its name in front, for
	// containers; nil for none.
	Mirror io.Writer
	Env    []string // of the children
	Log    *slog.Logger
	// Before is called once with the lock held, before any child is started: it
	// waits for what they need. Its error ends Run; a signal ends its context.
	Before func(ctx context.Context) error
	// AwaitReady is called once every child was started; systemd is told that the
	// host is ready when it returns. It must return, also when the host never is;
	// its context ends when the host stops. nil: ready at once.
	AwaitReady func(ctx context.Context)
	// AfterStop is called when every child has ended, before the lock is let
	// go: it ends what the agent left behind. It has its own deadlines.
	AfterStop func() error
	// Accept is asked whether the changed configuration may be used: at SIGHUP
	// (asked), and every two seconds while it says no, when it looks whether the
	// mistake was mended. Only what it accepts is passed on. nil: everything is.
	Accept func(asked bool) (changed bool, err error)
	// Signals are received by the caller with signal.Notify: SIGTERM and SIGINT
	// stop, SIGHUP is passed on.
	Signals <-chan syscall.Signal

	// Pauses between restarts; zero values mean 200 ms doubling to 10 s, reset
	// after 30 s of life.
	FirstPause, LongestPause, Settled time.Duration
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.FirstPause, 200*time.Millisecond)
	def(&c.LongestPause, 10*time.Second)
	def(&c.Settled, 30*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// State of a child.
type State string

const (
	Running  State = "running"
	Waiting  State = "waiting" // died; will be started again after a pause
	Stopping State = "stopping"
	Stopped  State = "stopped"
)

// ChildStatus is what the control socket says of a child.
type ChildStatus struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	PID      int       `json:"pid"` // 0 when none runs
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"` // of the state
	// LastExit is how it last ended and LastLine what it last said, both for
	// people; empty while it has never died.
	LastExit string `json:"last_exit,omitempty"`
	LastLine string `json:"last_line,omitempty"`
}

// Status is what the control socket answers.
type Status struct {
	Schema   int           `json:"schema"` // 1
	PID      int           `json:"pid"`
	Since    time.Time     `json:"since"`
	Stopping bool          `json:"stopping"`
	Children []ChildStatus `json:"children"`
}
