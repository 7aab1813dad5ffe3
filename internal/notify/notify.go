package notify

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"manada/internal/config"
	"manada/internal/store"
)

// Deadline of one run of the command; its whole process group is ended then.
const Deadline = 30 * time.Second

// waiting is how many events may wait for the command.
const waiting = 64

// Who is known of the herd when an event happens.
type Who struct {
	NodeID      int
	PrimaryID   int
	Primary     string
	PrimaryInfo string // how to reach its PostgreSQL
	Switchover  bool   // the present epoch began with one
}

// Config of a Notifier.
type Config struct {
	Command  config.Command
	Only     []string // kinds, ours or repmgr's; empty: all
	Who      func() Who
	Log      *slog.Logger
	Deadline time.Duration // default Deadline
}

// Notifier runs the command.
type Notifier struct {
	cfg Config
	ch  chan store.Event
}

// New makes a Notifier; Run runs the command.
func New(cfg Config) *Notifier {
	if cfg.Deadline == 0 {
		cfg.Deadline = Deadline
	}
	return &Notifier{cfg, make(chan store.Event, waiting)}
}

// Tell queues an event and never waits.
func (n *Notifier) Tell(e store.Event) {
	select {
	case n.ch <- e:
	default:
		n.cfg.Log.Warn("events.command is too slow: an event is not told", "event", e.Kind)
	}
}

// Run runs the command for each event until ctx ends.
func (n *Notifier) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-n.ch:
			n.one(ctx, e)
		}
	}
}

func (n *Notifier) one(ctx context.Context, e store.Event) {
	who := n.cfg.Who()
	r := repmgrName(e.Kind, who.Switchover)
	if len(n.cfg.Only) > 0 && !slices.Contains(n.cfg.Only, e.Kind) && !slices.Contains(n.cfg.Only, r) {
		return
	}
	args := n.cfg.Command.With(map[byte]string{
		'n': fmt.Sprint(who.NodeID), 'e': e.Kind, 'r': r, 's': success(e.Kind), 't': e.At.UTC().Format("2006-01-02 15:04:05.000000-07"),
		'd': e.Text, 'p': fmt.Sprint(who.PrimaryID), 'a': who.Primary, 'c': who.PrimaryInfo,
	})
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("not done within %s", n.cfg.Deadline)
	}
	if err != nil {
		n.cfg.Log.Warn("events.command failed", "event", e.Kind, "error", err.Error(), "output", lastOf(out))
	}
}

// lastOf is the end of what a command printed.
func lastOf(out []byte) string {
	s := strings.TrimSpace(string(out))
	if len(s) > 500 {
		s = s[len(s)-500:]
	}
	return s
}

func success(kind string) string {
	if strings.HasSuffix(kind, "_failed") || kind == "archive_gap" || kind == "node_lost" {
		return "0"
	}
	return "1"
}

// asRepmgr are repmgr's names for what happened, where it has one.
var asRepmgr = map[string]string{
	"switchover_done":     "standby_switchover",
	"rewound":             "node_rejoin",
	"rejoined":            "node_rejoin",
	"cloned":              "standby_clone",
	"degraded":            "child_node_disconnect",
	"durability_restored": "child_node_reconnect",
	"node_removed":        "standby_unregister",
	"config_changed":      "repmgrd_reload",
}

// repmgrName is repmgr's name of an event, ours where it has none.
func repmgrName(kind string, switchover bool) string {
	switch {
	case kind == "promoted" && switchover:
		return "standby_promote"
	case kind == "promoted":
		return "repmgrd_failover_promote"
	}
	if r, ok := asRepmgr[kind]; ok {
		return r
	}
	return kind
}
