package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"manada/internal/durable"
)

// Memory is what the repository host remembers of a stanza, outside of the
// repository: who destroys that does not destroy the knowledge that it was there.
type Memory struct {
	Schema   int              `json:"schema"` // 1
	SystemID uint64           `json:"system_id,omitempty"`
	Version  string           `json:"version,omitempty"`
	Backups  map[string]Known `json:"backups,omitempty"` // by label; expired ones are forgotten
	// WAL is the newest segment that was seen of each archive id.
	WAL  map[string]string `json:"wal,omitempty"`
	Lost []string          `json:"lost,omitempty"` // what was there and is gone
	Gaps []KnownGap        `json:"gaps,omitempty"` // of the archive, as last looked
}

// State is what the repository host tells of a stanza.
type State struct {
	Memory
	// Full says why new WAL and backups are refused; "": they are not.
	Full string `json:"full,omitempty"`
}

// Known is what is remembered of a finished backup.
type Known struct {
	Since time.Time  `json:"since"`          // when it was first seen
	Read  *time.Time `json:"read,omitempty"` // when it was read back; nil: not yet
	Bad   string     `json:"bad,omitempty"`  // what was wrong with it then
}

// memory is the file; several processes of the host may use it.
type memory struct {
	path string
	mu   sync.Mutex
}

func (m *memory) load() (Memory, error) {
	v := Memory{Schema: 1}
	b, err := os.ReadFile(m.path)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v, fmt.Errorf("read what is remembered of the repository (%s): %w", m.path, err)
	}
	if v.Backups == nil {
		v.Backups = map[string]Known{}
	}
	if v.WAL == nil {
		v.WAL = map[string]string{}
	}
	return v, nil
}

// update changes it; change says whether it did.
func (m *memory) update(change func(*Memory) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(m.path), 0o700); err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	lock, err := os.OpenFile(m.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	v, err := m.load()
	if err != nil || !change(&v) {
		return err
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = durable.Write(m.path, append(b, '\n'), durable.Options{})
	}
	if err != nil {
		return fmt.Errorf("remember the repository: %w", err)
	}
	return nil
}
