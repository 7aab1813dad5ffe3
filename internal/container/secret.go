package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"manada/internal/durable"
	"manada/internal/pki"
)

// Files on the volume that all containers share.
const (
	joinFile = "join"     // the join secret
	appFile  = "app.json" // the application's log-in, for `manada uri`
)

// KeepSecret makes sure that there is a join secret: the given one, else the
// one on the shared volume, which whoever comes first makes up. A given one is
// put there, too, for those that were given none.
func (p Places) KeepSecret(h *Host) error {
	if h.JoinSecret != "" {
		if err := writePrivate(p.SecretFile(h), h.JoinSecret+"\n"); err != nil {
			return err
		}
		return writePrivate(filepath.Join(p.Secrets, joinFile), h.JoinSecret+"\n")
	}
	return createPrivate(filepath.Join(p.Secrets, joinFile), pki.NewPassword()+"\n")
}

// secret reads the join secret; it may change while this host waits.
func (p Places) secret(h *Host) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(p.SecretFile(h))
		if errors.Is(err, fs.ErrNotExist) { // the volume was emptied meanwhile
			if err = p.KeepSecret(h); err == nil {
				b, err = os.ReadFile(p.SecretFile(h))
			}
		}
		return strings.TrimSpace(string(b)), err
	}
}

// KeepApp puts the application's log-in on the shared volume, where a proxy's
// `manada uri` finds it.
func (p Places) KeepApp(a App) error {
	if a.User == "" || a.Password == "" {
		return nil
	}
	if a.Database == "" {
		a.Database = "postgres"
	}
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("keep the application's log-in: %w", err)
	}
	return writePrivate(filepath.Join(p.Secrets, appFile), string(b)+"\n")
}

// ReadApp reads it; ok is false where there is none, as outside containers.
func (p Places) ReadApp() (a App, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(p.Secrets, appFile))
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		return a, false, fmt.Errorf("read the application's log-in: %w", err)
	}
	return a, true, nil
}

// writePrivate replaces a file, 0600, whole or not at all.
func writePrivate(file, text string) error {
	if old, err := os.ReadFile(file); err == nil && string(old) == text {
		return nil
	}
	return durable.Write(file, []byte(text), durable.Options{})
}

// createPrivate writes a file unless there is one: of several at once one wins,
// and nobody reads half of it.
func createPrivate(file, text string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	if err := durable.WriteNew(file, []byte(text), durable.Options{}); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
