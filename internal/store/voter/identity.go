package voter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"manada/internal/durable"
)

// identity is Dir/voter.json. It lies outside of etcd's data so that data that
// went missing is noticed: founding anew over it is refused.
type identity struct {
	Schema  int       `json:"schema"`
	Name    string    `json:"name"`
	StoreID string    `json:"store_id"`
	Since   time.Time `json:"since"`
}

func (c *Config) identityFile() string { return filepath.Join(c.Dir, "voter.json") }

func (c *Config) readIdentity() (*identity, error) {
	b, err := os.ReadFile(c.identityFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the voter's identity: %w", err)
	}
	id := new(identity)
	if err := json.Unmarshal(b, id); err != nil {
		return nil, fmt.Errorf("read the voter's identity in %s: %w", c.identityFile(), err)
	}
	return id, nil
}

func (c *Config) writeIdentity(storeID uint64) error {
	b, err := json.Marshal(identity{Schema: 1, Name: c.Name, StoreID: fmt.Sprintf("%x", storeID), Since: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("write the voter's identity: %w", err)
	}
	if err := durable.Write(c.identityFile(), b, durable.Options{}); err != nil {
		return fmt.Errorf("write the voter's identity: %w", err)
	}
	return nil
}
