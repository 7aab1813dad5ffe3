package herd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"manada/internal/config"
)

// farDir is where the data goes when the account that runs PostgreSQL cannot
// reach the herd's folder.
var farDir = "/var/lib/manada"

// ownerFile says in a data folder elsewhere whose it is.
const ownerFile = "herd.path"

// dataDir chooses where a new herd's data goes: the folder itself, or
// /var/lib/manada/NAME when the account cannot reach it; blocked is then the
// folder that is in its way.
func dataDir(dir, name string, a config.Account) (data, blocked string, err error) {
	blocked = a.Reaches(filepath.Join(dir, "x"))
	if st, err := os.Stat(dir); blocked == "" && errors.Is(err, os.ErrNotExist) || blocked == "" && err == nil && st.IsDir() {
		return dir, "", nil
	}
	if blocked == "" {
		return "", "", misused("choose another folder with --dir", "%s is a file, not a folder", dir)
	}
	for _, d := range []string{filepath.Join(farDir, name), filepath.Join(farDir, name+"-"+shortHash(dir))} {
		free, err := isOurs(d, dir)
		if err != nil {
			return "", "", err
		}
		if free {
			return d, blocked, nil
		}
	}
	return "", "", misused("choose another name with --name, or a folder that user "+a.Name+" can reach with --dir", "%s holds the data of another herd", filepath.Join(farDir, name))
}

func shortHash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:4])
}

// isOurs says whether a data folder elsewhere is unused, or was made for dir
// and never came to life.
func isOurs(data, dir string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(data, ownerFile))
	if errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(data)
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		return len(entries) == 0, err
	}
	if err != nil {
		return false, fmt.Errorf("read owner of %s: %w", data, err)
	}
	if strings.TrimSpace(string(b)) != dir {
		return false, nil
	}
	lives, err := anyIdentity(data)
	return !lives, err
}

// anyIdentity says whether a host below data has an identity: a herd that lives.
func anyIdentity(data string) (bool, error) {
	m, err := filepath.Glob(filepath.Join(data, "*", "identity", "identity.json"))
	return len(m) > 0, err
}
