package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"manada/internal/config"
	"manada/internal/durable"
	"manada/internal/pki"
)

// Facts is what a host knows of its herd before it has talked to anybody: told
// to it when it joined and kept up to date by its agent.
type Facts struct {
	Schema    int               `json:"schema"`    // 1
	Founder   bool              `json:"founder"`   // this host founded the herd
	Endpoints []string          `json:"endpoints"` // client URLs of the store's voters
	Peers     map[string]string `json:"peers"`     // agents, node to host:port
	Repo      string            `json:"repo"`      // backupd, host:port; empty: none known
	RepoNode  string            `json:"repo_node"`
	HadRepo   bool              `json:"had_repo"` // some host has had the role repository
}

func factsPath(c *config.Config) string { return filepath.Join(c.StateDir(), "herd.json") }

// loadHost reads who this host is and what it remembers of its herd.
func loadHost(c *config.Config) (*pki.Identity, Facts, error) {
	id, err := pki.Load(c.IdentityDir())
	if err != nil {
		return nil, Facts{}, err
	}
	f, err := ReadFacts(c)
	return id, f, err
}

// ReadFacts reads them; a host that knows nothing yet has none.
func ReadFacts(c *config.Config) (Facts, error) {
	f := Facts{Schema: 1, Peers: map[string]string{}}
	b, err := os.ReadFile(factsPath(c))
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, fmt.Errorf("read what is known of the herd: %w", err)
	}
	if f.Peers == nil {
		f.Peers = map[string]string{}
	}
	return f, nil
}

// WriteFacts replaces them.
func WriteFacts(c *config.Config, f Facts) error {
	f.Schema = 1
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("write what is known of the herd: %w", err)
	}
	if err := os.MkdirAll(c.StateDir(), 0o700); err != nil {
		return fmt.Errorf("write what is known of the herd: %w", err)
	}
	if err := durable.Write(factsPath(c), append(b, '\n'), durable.Options{}); err != nil {
		return fmt.Errorf("write what is known of the herd: %w", err)
	}
	return nil
}

// TakeFacts keeps what a member told this newcomer.
func TakeFacts(c *config.Config, told json.RawMessage) error {
	var f Facts
	if err := json.Unmarshal(told, &f); err != nil {
		return fmt.Errorf("read what the member says of the herd: %w", err)
	}
	f.Founder = false
	return WriteFacts(c, f)
}
