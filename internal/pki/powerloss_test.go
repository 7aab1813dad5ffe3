package pki

import (
	"crypto/sha256"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

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

// TestGenerationSurvivesPowerLoss: a host that says that it holds a generation
// has all of it, and its key and certificate always fit.
func TestGenerationSurvivesPowerLoss(t *testing.T) {
	r := newRotating(t)
	r.begin("db1", nil, Order{What: []string{RotatePasswords, RotateCA}})
	want := r.open()
	kek := sha256.Sum256(func() []byte { // as db1 has it
		_, err := r.ids["db1"].TakeUp(want)
		must(t, err)
		k, err := r.ids["db1"].KEK()
		must(t, err)
		return k
	}())
	id := r.ids["db2"]
	durabletest.PowerLoss(t, id.Dir(), func() error {
		if _, err := id.TakeUp(want); err != nil {
			return err
		}
		q, err := id.NewRefresh(true, "")
		if err != nil {
			return err
		}
		b, _, err := q.Open()
		if err != nil {
			return err
		}
		ca, err := r.ids["db1"].OpenCA(want.Authority)
		if err != nil {
			return err
		}
		cert, err := ca.Sign(b.CSR, id.Name(), nil, time.Now())
		if err != nil {
			return err
		}
		return id.InstallRefreshed(cert, want.CertGeneration)
	}, func(l durabletest.Loss) string {
		got, err := Load(l.Dir)
		if err != nil {
			return err.Error()
		}
		h, err := ReadHeld(l.Dir)
		if err != nil {
			return err.Error()
		}
		k, err := got.KEK()
		if err != nil {
			return err.Error()
		}
		taken := h.Generation == want.Generation
		switch {
		case taken && sha256.Sum256(k) != kek:
			return "the generation without its kek"
		case taken && h.Next == nil:
			return "the generation without its passwords"
		case l.Returned && (!taken || h.CertGeneration != want.CertGeneration || !got.believed().signed(got.cert.Load().Leaf)):
			return "not all was kept"
		case h.CertGeneration == want.CertGeneration && !got.believed().signed(got.cert.Load().Leaf):
			return "the certificate is older than it is said to be"
		}
		return ""
	})
}
