package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"manada/internal/durable"
)

// revPersist is how often a higher store revision alone is written to disk. It
// grows with every renewal; the marks that matter (epoch, the record's own
// revision, the store's identity) are written at once.
const revPersist = 10 * time.Second

// HighWater remembers on disk the newest that this node has ever seen of the
// store, so that a store that went back in time is noticed (finding C6): voters
// that lost their disks, a backup of etcd that was restored, a store founded
// anew. After ErrRolledBack there must be no role change, no degradation and no
// thaw; only an operator's word (Adopt) ends it.
// Safe for concurrent use.
type HighWater struct {
	path string

	mu       sync.Mutex
	m        Marks
	received time.Time // when the marks in memory were; zero: from the disk
	written  time.Time // Received of the snapshot written last
}

// Marks are the highest values seen.
type Marks struct {
	Schema   int    `json:"schema"`
	Epoch    uint64 `json:"epoch"`
	TermRev  int64  `json:"term_rev"`
	StoreRev int64  `json:"store_rev"`
	StoreID  uint64 `json:"store_id,string"`
}

// OpenHighWater reads the marks; a missing file is a node that has seen
// nothing. An unreadable one is an error: do not go on without it.
func OpenHighWater(path string) (*HighWater, error) {
	h := &HighWater{path: path, m: Marks{Schema: 1}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &h.m)
	}
	if err != nil {
		return nil, fmt.Errorf("read the store's high-water mark %s: %w", path, err)
	}
	return h, nil
}

// Marks returns the present marks.
func (h *HighWater) Marks() Marks {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m
}

// Check compares a snapshot with the marks: ErrRolledBack when it knows less
// than was known when it was asked for. A snapshot that is merely late, asked
// for before the newest one arrived, is let pass.
func (h *HighWater) Check(s Snapshot) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.check(s)
}

func (h *HighWater) check(s Snapshot) error {
	if h.m.TermRev == 0 && h.m.Epoch == 0 {
		return nil // no term was ever seen: nothing could be lost
	}
	if s.StoreID != h.m.StoreID {
		return fmt.Errorf("store %x answers instead of %x, it was founded anew or restored from a backup: %w",
			s.StoreID, h.m.StoreID, ErrRolledBack)
	}
	if s.Sent.Before(h.received) {
		return nil
	}
	switch epoch := epochOf(s); {
	case epoch < h.m.Epoch:
		return fmt.Errorf("the store is at epoch %d, epoch %d is known: %w", epoch, h.m.Epoch, ErrRolledBack)
	case s.TermRev < h.m.TermRev:
		return fmt.Errorf("the term has revision %d, revision %d is known: %w", s.TermRev, h.m.TermRev, ErrRolledBack)
	case s.StoreRev < h.m.StoreRev:
		return fmt.Errorf("the store has revision %d, revision %d is known: %w", s.StoreRev, h.m.StoreRev, ErrRolledBack)
	}
	return nil
}

func epochOf(s Snapshot) uint64 {
	if s.Term == nil {
		return 0
	}
	return s.Term.Epoch
}

// Observe is Check and, if that holds, raises the marks. When it returns
// without error the epoch and the record's revision are on disk: call it before
// obeying the snapshot.
func (h *HighWater) Observe(s Snapshot) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.check(s); err != nil {
		return err
	}
	next := Marks{Schema: 1, StoreID: s.StoreID, Epoch: epochOf(s), TermRev: s.TermRev, StoreRev: s.StoreRev}
	if s.StoreID == h.m.StoreID {
		next.Epoch, next.TermRev = max(next.Epoch, h.m.Epoch), max(next.TermRev, h.m.TermRev)
		next.StoreRev = max(next.StoreRev, h.m.StoreRev)
	}
	return h.set(next, laterOf(s.Received, h.received))
}

// Obey records an epoch that this node obeys by another way than a snapshot
// (its own successful swap at revision rev), on disk before it returns.
func (h *HighWater) Obey(epoch uint64, rev int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.m
	next.Epoch, next.TermRev, next.StoreRev = max(next.Epoch, epoch), max(next.TermRev, rev), max(next.StoreRev, rev)
	// The reads that are under way may well return less.
	return h.set(next, laterOf(time.Now(), h.received))
}

func laterOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Adopt takes a snapshot's values for the truth, lower or not: after an
// operator has recovered the store. The epoch never sinks.
func (h *HighWater) Adopt(s Snapshot) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := epochOf(s); e < h.m.Epoch {
		return fmt.Errorf("adopt the store: it is at epoch %d, recovery must go past %d: %w", e, h.m.Epoch, ErrRolledBack)
	}
	return h.set(Marks{Schema: 1, Epoch: epochOf(s), TermRev: s.TermRev, StoreRev: s.StoreRev, StoreID: s.StoreID}, s.Received)
}

// set writes what must be on disk and then takes the marks over.
func (h *HighWater) set(next Marks, at time.Time) error {
	was := h.m
	was.StoreRev = next.StoreRev
	if was != next || next.StoreRev < h.m.StoreRev || at.Sub(h.written) >= revPersist {
		b, err := json.Marshal(next)
		if err != nil {
			return fmt.Errorf("write the store's high-water mark: %w", err)
		}
		if err := durable.Write(h.path, b, durable.Options{}); err != nil {
			return fmt.Errorf("write the store's high-water mark: %w", err)
		}
		h.written = at
	}
	h.m, h.received = next, at
	return nil
}
