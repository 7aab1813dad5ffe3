package pki

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"manada/internal/durable"
)

// Files of an identity directory.
const (
	fileCA       = "ca.crt"   // 0644
	fileCert     = "host.crt" // 0644
	fileKey      = "host.key"
	fileKEK      = "kek"
	fileSecrets  = "secrets.json"
	fileIdentity = "identity.json" // written last: with it the directory is complete
	fileFounding = "ca-key.sealed" // only until FinishFounding
)

// writeFile writes a file durably. When root writes, the file is given to the
// owner of the directory: PostgreSQL reads its key from here and never runs as
// root.
func writeFile(dir, name string, data []byte, mode os.FileMode) error {
	owner, err := durable.OwnerOf(dir)
	if err != nil {
		return err
	}
	return durable.Write(filepath.Join(dir, name), data, durable.Options{Mode: mode, Owner: owner})
}

// makeDir makes an identity directory, 0700, if it is not there.
func makeDir(dir string) error {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make identity directory: %w", err)
	}
	return nil
}

func readJSON(dir, name string, v any) error {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(dir, name), err)
	}
	return nil
}

func writeJSON(dir, name string, v any, mode os.FileMode) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return writeFile(dir, name, append(b, '\n'), mode)
}

// Exists says whether the directory holds a complete identity.
func Exists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, fileIdentity))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for identity: %w", err)
	}
	return true, nil
}
