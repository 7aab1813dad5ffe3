package postgres

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// marks is StateDir/state.json.
type marks struct {
	Schema int `json:"schema"` // 1
	// Instance is the id of the directory; PGDATA/manada.instance must agree.
	Instance string `json:"instance"`
	// LedEpoch is the newest epoch this node set out to lead.
	LedEpoch uint64 `json:"led_epoch"`
	// FormerPrimary is set before promoting and cleared by a completed rewind or
	// clone: a former primary is always rewound, never judged (finding C1).
	FormerPrimary bool `json:"former_primary"`
	// Served is set before the placeholder is first replaced: from then on
	// commits may have been acknowledged, and the founding start is over.
	Served bool `json:"served"`
	// Founded: Found made it. Until it has served, pg_control's "shut down" is
	// initdb's and not that of a primary.
	Founded bool `json:"founded"`
	// Remade is the epoch from whose leader it was rewound or cloned, until
	// SetConsistent.
	Remade uint64 `json:"remade"`
	// Rewound is how often it was rewound in RewoundIn, the newest epoch from whose
	// leader it was. A clone begins anew.
	Rewound   int    `json:"rewound,omitempty"`
	RewoundIn uint64 `json:"rewound_in,omitempty"`
}

// Poison says that the data directory is being made anew: nothing in it counts.
type Poison struct {
	What string `json:"what"` // "rewind" or "clone"
	From string `json:"from"` // node
	// Touched: the directory has been altered; only a clone can finish.
	Touched bool   `json:"touched"`
	Tail    string `json:"tail,omitempty"` // bundle in lost-and-found, once saved
	// Spaces are the directories of the old copy's tablespaces, which a clone
	// empties: the links to them may be gone when it begins again.
	Spaces []string `json:"spaces,omitempty"`
	Since  string   `json:"since"`
}

const instanceFile = "manada.instance"

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.Write(path, append(b, '\n'), durable.Options{})
}

// readJSON returns false when there is no such file. A file that cannot be
// read is an error, never "no mark".
func readJSON(path string, v any) (bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, nil
}

func (i *Instance) statePath(name string) string { return filepath.Join(i.cfg.StateDir, name) }

// Promise reads the promise that stands on this disk, nil if none.
func (i *Instance) Promise() (*cluster.Promise, error) {
	var p cluster.Promise
	ok, err := readJSON(i.statePath("promise.json"), &p)
	if err != nil || !ok {
		return nil, err
	}
	return &p, nil
}

// WritePromise writes the promise, fsynced, before it may go into the record
// (finding H3). While it stands Follow refuses every epoch up to its own.
func (i *Instance) WritePromise(p cluster.Promise) error {
	return writeJSON(i.statePath("promise.json"), p)
}

// RemovePromise takes the promise off the disk; only after it is off the record.
func (i *Instance) RemovePromise() error { return durable.Remove(i.statePath("promise.json")) }

// Poison reads the poison mark, nil if none.
func (i *Instance) Poison() (*Poison, error) {
	var p Poison
	ok, err := readJSON(i.statePath("poison.json"), &p)
	if err != nil || !ok {
		return nil, err
	}
	return &p, nil
}

func (i *Instance) setPoison(p Poison) error {
	if p.Since == "" {
		p.Since = time.Now().UTC().Format(time.RFC3339)
	}
	return writeJSON(i.statePath("poison.json"), p)
}

func (i *Instance) clearPoison() error { return durable.Remove(i.statePath("poison.json")) }

func (i *Instance) readMarks() (marks, error) {
	m := marks{Schema: 1}
	_, err := readJSON(i.statePath("state.json"), &m)
	return m, err
}

func (i *Instance) updateMarks(change func(*marks)) error {
	i.marksMu.Lock()
	defer i.marksMu.Unlock()
	m, err := i.readMarks()
	if err != nil {
		return err
	}
	change(&m)
	m.Schema = 1
	return writeJSON(i.statePath("state.json"), m)
}

// InstanceID is the id of the data directory, "" when it has none, when the two
// places where it is written disagree (somebody copied or replaced the
// directory), or while it is poisoned: such a directory promises nothing.
func (i *Instance) InstanceID() (string, error) {
	if p, err := i.Poison(); err != nil || p != nil {
		return "", err
	}
	m, err := i.readMarks()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(i.cfg.DataDir, instanceFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read instance id: %w", err)
	}
	if s := strings.TrimSpace(string(b)); s == m.Instance {
		return s, nil
	}
	return "", nil
}

// SetConsistent ends the state after a rewind or clone: PostgreSQL has accepted
// connections since, so it has all the WAL that it needed.
func (i *Instance) SetConsistent() error {
	if m, err := i.readMarks(); err != nil || m.Remade == 0 {
		return err
	}
	return i.updateMarks(func(m *marks) { m.Remade = 0 })
}

// newInstanceID gives the directory a new identity: into dir first, which may
// still be a directory beside PGDATA, then into the state.
func (i *Instance) newInstanceID(dir string, change func(*marks)) error {
	id := strings.ToLower(rand.Text()[:16])
	if err := durable.Write(filepath.Join(dir, instanceFile), []byte(id+"\n"), durable.Options{}); err != nil {
		return err
	}
	return i.updateMarks(func(m *marks) {
		m.Instance = id
		if change != nil {
			change(m)
		}
	})
}

// LedEpoch is the newest epoch that this node set out to lead, 0 if none.
func (i *Instance) LedEpoch() (uint64, error) {
	m, err := i.readMarks()
	return m.LedEpoch, err
}

// SetLedEpoch notes that this node leads (a founding leader; Promote notes it itself).
func (i *Instance) SetLedEpoch(epoch uint64) error {
	return i.updateMarks(func(m *marks) { m.LedEpoch, m.FormerPrimary = max(m.LedEpoch, epoch), true })
}
