package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/postgres"
)

// Repository is where WAL is archived. Implementations bound every call by the
// context.
type Repository interface {
	// Push stores a WAL segment or history file; the same content again is no error.
	Push(ctx context.Context, path string) error
	// Get fetches one into dest; os.ErrNotExist when it is not there.
	Get(ctx context.Context, name, dest string) error
	// Restore makes a data directory out of a backup. What is there already and
	// the same is kept, all else replaced; it may be repeated.
	Restore(ctx context.Context, label, dir string, progress func(done, total int64)) error
	// Nowhere says why WAL is not archived at all: nobody wants it, or there never
	// was a repository. "" when it is.
	Nowhere() string
}

// ErrOther is what Push wraps when the archive has another content under the name.
var ErrOther = errors.New("the archive has another file of this name")

// ArchiveCall is what archive_command and restore_command ask of the agent on
// this host, over its unix socket.
type ArchiveCall struct {
	Path string `json:"path,omitempty"` // push: the file
	Name string `json:"name,omitempty"` // get: its name
	Dest string `json:"dest,omitempty"` // get: where it goes
}

// SocketName is the agent's socket in the run directory, 0600.
const SocketName = "agent.sock"

func (a *Agent) servePush(w http.ResponseWriter, r *http.Request) {
	var c ArchiveCall
	err := json.NewDecoder(r.Body).Decode(&c)
	if err == nil {
		err = a.mayArchive()
	}
	if err == nil && strings.HasSuffix(c.Path, ".history") {
		err = a.historyOK(c.Path)
	}
	if err == nil && a.repo.Nowhere() == "" { // else PostgreSQL may remove it
		ctx, cancel := a.pushes.begin(r.Context())
		defer cancel()
		if err = a.mayArchive(); err == nil { // whoever ends the pushes has said first that there are to be none
			err = a.repo.Push(ctx, c.Path)
		}
		if errors.Is(context.Cause(ctx), errHandingOver) {
			err = errHandingOver
		}
	}
	if !errors.Is(err, errHandingOver) { // else nothing is wrong with the archive
		a.archived(filepath.Base(c.Path), err)
	}
	if err != nil {
		peer.WriteError(w, fmt.Errorf("archive %s on %s: %w", filepath.Base(c.Path), a.cfg.Node, err))
	}
}

// mayArchive: only the leader of the current epoch archives. WAL of an epoch
// that is over would poison the archive for everybody else (T11).
func (a *Agent) mayArchive() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.rec.snap.Term
	switch {
	case a.repo == nil:
		return errors.New("no repository is known yet")
	case t == nil || a.mem.leads == 0 || t.Leader != a.cfg.Node || t.Epoch != a.mem.leads:
		return errors.New("this node does not lead the current epoch")
	case a.mem.archiveRests:
		return errHandingOver
	}
	return nil
}

// historyOK: an impossible history would mislead everybody who ever restores. The
// path is what PostgreSQL gave to archive_command, a file of pg_wal.
func (a *Agent) historyOK(path string) error {
	if err := postgres.CheckHistory(filepath.Join(a.wal, filepath.Base(path))); errors.Is(err, postgres.ErrHistory) {
		return err
	}
	return nil
}

// archived remembers how archiving of a file goes, for `status`.
func (a *Agent) archived(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noteOther(name, err)
	if err == nil {
		a.archiveErr = ""
		return
	}
	if a.archiveErr == "" {
		a.log.Warn("archiving fails", "error", err.Error())
	}
	a.archiveErr = err.Error()
}

// noteOther remembers of which file the archive has another content: it is asked
// for again until that is mended. Called with mu held.
func (a *Agent) noteOther(name string, err error) {
	switch {
	case errors.Is(err, ErrOther):
		a.archiveOther = name
	case a.archiveOther == name:
		a.archiveOther = ""
	}
}

func (a *Agent) serveGet(w http.ResponseWriter, r *http.Request) {
	var c ArchiveCall
	err := json.NewDecoder(r.Body).Decode(&c)
	if err == nil && a.repo == nil {
		err = errors.New("no repository is known yet")
	}
	ctx, cancel := a.fetches.begin(r.Context())
	defer cancel()
	if err == nil {
		if err = os.ErrNotExist; !a.frozen() {
			err = a.repo.Get(ctx, c.Name, c.Dest)
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(context.Cause(ctx), errUpstreamCut):
		peer.WriteError(w, peer.Refuse(http.StatusNotFound, peer.CodeNotFound, "", "%s is not in the archive", c.Name))
	case err != nil:
		peer.WriteError(w, fmt.Errorf("fetch %s from the archive: %w", c.Name, err))
	}
}

// frozen says whether nothing may come to this node's WAL any more: it has
// promised where that ends, or has won. A startup process goes on asking with the
// restore_command that it knew, and its promotion waits for the answer.
func (a *Agent) frozen() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.rec.snap.Term
	return a.seen.restore.ID == "" && (a.seen.promised != 0 || t != nil && t.Leader == a.cfg.Node)
}

// backfillLoop archives what the dead primary streamed here but never archived:
// on a promoted standby those segments are marked done (T11). Each epoch that
// this node leads is looked at until it is done, also by an agent that was
// started again meanwhile: a hole in the archive is found only when somebody
// restores.
func (a *Agent) backfillLoop(ctx context.Context) {
	const longest = time.Minute
	done, told, pause := uint64(0), uint64(0), a.cfg.Spec.SuspectAfter
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.opened:
		case <-time.After(pause):
		}
		t := a.Term()
		if t == nil || !t.Open || t.Epoch == done || a.mayArchive() != nil || a.repo.Nowhere() != "" {
			pause = a.cfg.Spec.SuspectAfter
			continue
		}
		missing, err := a.backfill(ctx, t)
		if err == nil {
			done = t.Epoch
			continue
		}
		pause = min(2*pause, longest)
		if told != t.Epoch && ctx.Err() == nil {
			told = t.Epoch
			a.log.Warn("cannot back-fill the archive yet", "segment", missing, "error", err.Error())
			a.event("archive_gap", t.Epoch, missing+" could not be archived after the takeover, it is tried again: "+err.Error())
		}
	}
}

// backfill pushes the whole segments of the old timeline below the fork, in
// order; what is there already is compared.
func (a *Agent) backfill(ctx context.Context, t *cluster.Term) (missing string, err error) {
	b := t.Current()
	parent, ok := t.Branch(b.Parent)
	if !ok {
		return "", nil
	}
	size, err := a.segmentSize()
	if err != nil {
		return "what is in pg_wal", err
	}
	last := parent.Timeline.Segment(b.ForkLSN, uint64(size))
	names, err := a.segments(parent.Timeline)
	if err != nil {
		return "what is in pg_wal", err
	}
	for _, path := range names {
		if filepath.Base(path) >= last {
			break
		}
		if err := a.mayArchive(); err != nil {
			return "", nil // somebody else's business now
		}
		one, cancel := context.WithTimeout(ctx, time.Minute)
		err := a.repo.Push(one, path)
		cancel()
		a.mu.Lock()
		a.noteOther(filepath.Base(path), err)
		a.mu.Unlock()
		if err != nil && !errors.Is(err, os.ErrNotExist) { // recycled meanwhile: PostgreSQL had it archived
			return filepath.Base(path), err
		}
	}
	return "", nil
}
