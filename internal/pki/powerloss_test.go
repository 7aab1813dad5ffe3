package pki

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"manada/internal/durable/durabletest"
)

// TestIdentitySurvivesPowerLoss: a directory that says it is an identity is a
// whole one; any other can be founded again.
func TestIdentitySurvivesPowerLoss(t *testing.T) {
	dir := t.TempDir()
	found := func(dir string) error {
		_, err := Found(dir, "orders", "db1", KindData, []string{"10.0.0.11"})
		return err
	}
	durabletest.PowerLoss(t, dir, func() error { return found(dir) }, func(l durabletest.Loss) string {
		there, err := Exists(l.Dir)
		switch {
		case err != nil:
			return err.Error()
		case !there && l.Returned:
			return "founding returned and there is no identity"
		case !there:
			if err := found(l.Dir); err != nil {
				return "cannot be founded again: " + err.Error()
			}
		}
		if _, err := Load(l.Dir); err != nil {
			return err.Error()
		}
		if _, err := os.Stat(filepath.Join(l.Dir, fileFounding)); err != nil {
			return "the authority's key is gone before the store has it"
		}
		return ""
	})
}

// TestSecretsSurvivePowerLoss: passwords are the old or the new ones.
func TestSecretsSurvivePowerLoss(t *testing.T) {
	dir := t.TempDir()
	old, next := newSecrets(), newSecrets()
	if err := GiveSecrets(dir, old, nil); err != nil {
		t.Fatal(err)
	}
	durabletest.PowerLoss(t, dir, func() error { return GiveSecrets(dir, next, nil) }, func(l durabletest.Loss) string {
		got, err := ReadSecrets(l.Dir)
		if err != nil {
			return err.Error()
		}
		if !maps.Equal(got, next) && (l.Returned || !maps.Equal(got, old)) {
			return "other passwords"
		}
		return ""
	})
}
