package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"manada/internal/blob"
	"manada/internal/repo"
)

const (
	// lockIdle is how long a lock may be held by a host that asks for nothing,
	// lockMost how long at all.
	lockIdle = time.Hour
	lockMost = 48 * time.Hour
	// maxPuts bounds how many files of one host are written at once.
	maxPuts = 32
	// labelSlack is how far the time in a new backup's label may be from now.
	labelSlack = 24 * time.Hour
)

type callerKey struct{}

// WithCaller says which host asks.
func WithCaller(ctx context.Context, node string) context.Context {
	return context.WithValue(ctx, callerKey{}, node)
}

func callerOf(ctx context.Context) string {
	node, _ := ctx.Value(callerKey{}).(string)
	return node
}

// Guard is a storage of which others may do only what cannot destroy anything:
// read, create WAL of the stanza's cluster, and create files of the one backup
// for which they hold the stanza's lock. Requests without WithCaller are refused.
type Guard struct {
	*Bounded
	stanza string
	now    func() time.Time
	// writer is who writes WAL now; ok is false where that is not known, and then
	// the content of WAL alone is looked at. nil: it is never known.
	writer   func(context.Context) (w Writer, ok bool)
	patience time.Duration

	mu    sync.Mutex
	held  *session            // of the stanza's lock
	puts  map[string]int      // by host
	being map[string]struct{} // WAL segments that are being written
}

// session is the time during which a host holds the lock of the stanza.
type session struct {
	node  string
	label string // of the backup that it makes; empty: none yet
	since time.Time
	used  time.Time
	lost  chan struct{}
}

// NewGuard guards one stanza of a repository; nothing else in it can be written.
// writer is who writes WAL, see Guard.
func NewGuard(s *Bounded, stanza string, writer func(context.Context) (w Writer, ok bool)) *Guard {
	return &Guard{Bounded: s, writer: writer, patience: writerPatience, stanza: stanza, now: time.Now, puts: map[string]int{}, being: map[string]struct{}{}}
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{blob.ErrForbidden}, args...)...)
}

// Delete implements blob.Storage: nobody deletes.
func (g *Guard) Delete(_ context.Context, name string) error {
	return refused("only the repository host itself removes %s", name)
}

// DeleteAll implements blob.Storage: nobody deletes.
func (g *Guard) DeleteAll(_ context.Context, dir string) error {
	return refused("only the repository host itself removes %s", dir)
}

// Link implements blob.Storage: the repository host makes the links.
func (g *Guard) Link(_ context.Context, name, _ string) error {
	return refused("only the repository host itself makes the link %s", name)
}

// Put implements blob.Storage.
func (g *Guard) Put(ctx context.Context, name string, r io.Reader, _ blob.PutOptions) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	done, err := g.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	part := strings.Split(name, "/")
	switch {
	case len(part) >= 4 && part[0] == "archive" && part[1] == g.stanza:
		wal, done, err := g.mayArchive(ctx, part, r)
		if err != nil {
			return err
		}
		defer done()
		r = wal
	case len(part) >= 4 && part[0] == "backup" && part[1] == g.stanza:
		if err := g.mayBackUp(ctx, part[2]); err != nil {
			return err
		}
	default:
		return refused("%s is neither WAL nor part of a backup of stanza %s", name, g.stanza)
	}
	return g.Bounded.Put(ctx, name, r, blob.PutOptions{NoOverwrite: true})
}

// enter counts a host's writes.
func (g *Guard) enter(ctx context.Context) (done func(), err error) {
	node := callerOf(ctx)
	if node == "" {
		return nil, refused("it is not known who asks")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.puts[node] >= maxPuts {
		return nil, refused("%s writes %d files at once already", node, maxPuts)
	}
	g.puts[node]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.puts[node]--; g.puts[node] == 0 {
			delete(g.puts, node)
		}
	}, nil
}

// mayBackUp lets in files of the one backup of the lock's holder, until its
// manifest is there.
func (g *Guard) mayBackUp(ctx context.Context, label string) error {
	if !repo.IsLabel(label) {
		return refused("%s is not the label of a backup", label)
	}
	_, err := g.Storage.Stat(ctx, repo.BackupPath(g.stanza, label, repo.ManifestFile))
	if err == nil {
		return refused("backup %s is finished", label)
	}
	if !errors.Is(err, blob.ErrNotExist) {
		return err
	}
	node := callerOf(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.held
	switch {
	case s == nil || s.node != node:
		return refused("%s makes no backup: it does not hold the lock of stanza %s", node, g.stanza)
	case s.label == "" && !near(label, g.now()):
		return refused("label %s is not of now; compare the clocks of %s and of the repository host", label, node)
	case s.label != "" && s.label != label:
		return refused("%s makes backup %s, not %s", node, s.label, label)
	}
	s.label, s.used = label, g.now()
	return nil
}

// near says whether the newest time in a label is about now. Labels are in the
// local time of the host that makes them, so a day is about now.
func near(label string, now time.Time) bool {
	last := label[strings.LastIndex(label, "_")+1:]
	t, err := time.Parse("20060102-150405", last[:len("20060102-150405")])
	return err == nil && t.Sub(now).Abs() <= labelSlack
}

// Lock implements blob.Storage: the stanza's, which a backup or an expiry takes.
func (g *Guard) Lock(ctx context.Context, name string) (blob.Lock, error) {
	node := callerOf(ctx)
	first := name == g.stanza+"-backup"
	if node == "" || !first && name != g.stanza+"-backup-1" {
		return nil, refused("there is no lock %s", name)
	}
	l, err := g.Storage.Lock(ctx, name)
	if err != nil || !first {
		return l, err
	}
	s := &session{node: node, since: g.now(), used: g.now(), lost: make(chan struct{})}
	g.mu.Lock()
	g.held = s
	g.mu.Unlock()
	return &guardedLock{Lock: l, g: g, s: s}, nil
}

// Holds says whether a host holds the lock of the stanza.
func (g *Guard) Holds(node string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil || g.held.node != node {
		return false
	}
	g.held.used = g.now()
	return true
}

// Label is the backup that a host makes; empty: none.
func (g *Guard) Label(node string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil || g.held.node != node {
		return ""
	}
	return g.held.label
}

// Sweep takes a lock back that is held for too long, and says whose it was.
func (g *Guard) Sweep() (node string, swept bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, now := g.held, g.now()
	if s == nil || now.Sub(s.used) < lockIdle && now.Sub(s.since) < lockMost {
		return "", false
	}
	select {
	case <-s.lost:
		return "", false
	default:
	}
	close(s.lost)
	return s.node, true
}

type guardedLock struct {
	blob.Lock
	g *Guard
	s *session
}

func (l *guardedLock) Lost() <-chan struct{} { return l.s.lost }

func (l *guardedLock) Unlock() {
	l.g.mu.Lock()
	if l.g.held == l.s {
		l.g.held = nil
	}
	l.g.mu.Unlock()
	l.Lock.Unlock()
}
