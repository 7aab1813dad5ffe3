package session

import (
	"sync"
	"sync/atomic"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/split"
	"manada/internal/proxy/wire"
)

// watch says what the client is not to get of the first server's answers. up
// announces it before the server can answer, down asks.
//
// The server always sends warnings, because one of them says that a commit was
// not replicated. A client that has set client_min_messages above warning does
// not get the others. What it has set is followed through transactions; where
// that is in doubt (a rollback to a savepoint) it gets them.
type watch struct {
	on atomic.Bool // there may be something to do

	mu      sync.Mutex
	changes []levelChange // announced, in order
	parses  []uint64      // whose first answer to a Parse is not for the client: behind that many ReadyForQuery

	first, saved, session, now bool // warnings are hidden: at log-in, at the last end of a transaction, by its commit, now
}

type levelChange struct {
	at    uint64 // the ReadyForQuery that ends its unit
	level classify.Level
	local bool
}

// hide is the setting of the log-in.
func (w *watch) hide() {
	w.first, w.saved, w.session, w.now = true, true, true, true
	w.on.Store(true)
}

// announce is called before bytes are sent behind which asked units were sent.
func (w *watch) announce(step split.Step, asked uint64) {
	if len(step.Levels) == 0 && step.Before == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range step.Levels {
		w.changes = append(w.changes, levelChange{asked + uint64(l.After) + 1, l.Level, l.Local})
	}
	if step.Before != nil {
		w.parses = append(w.parses, asked)
	}
	w.on.Store(true)
}

// ready takes note of a ReadyForQuery.
func (w *watch) ready(scan *wire.ServerScan) {
	if !scan.Watch {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if scan.RolledBack {
		w.now, w.session = w.saved, w.saved
	}
	for len(w.changes) > 0 && w.changes[0].at <= scan.Ready {
		c := w.changes[0]
		if w.changes = w.changes[1:]; scan.Failed || scan.RolledBack {
			continue
		}
		w.now = c.level == classify.LevelHides || c.level == classify.LevelReset && w.first
		if !c.local {
			w.session = w.now
		}
	}
	if scan.Status == 'I' {
		w.now, w.saved = w.session, w.session
	}
	scan.RolledBack = false
	for len(w.parses) > 0 && w.parses[0] < scan.Ready {
		w.parses = w.parses[1:] // an error came in its place
	}
	// A transaction that hides nothing any more may have been begun by one that did.
	w.on.Store(w.first || w.now || w.saved || w.session || len(w.changes) > 0 || len(w.parses) > 0)
}

// drops says whether a message that was found is not for the client.
func (w *watch) drops(f wire.Found, ready uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !f.Parsed {
		return w.now
	}
	if len(w.parses) == 0 || w.parses[0] != ready {
		return false
	}
	w.parses = w.parses[1:]
	return true
}

// hidden says whether the client wants no warnings.
func (w *watch) hidden() bool {
	if !w.on.Load() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}
