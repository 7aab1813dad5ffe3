package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"manada/internal/config"
)

// Own gives the folders that this host writes to the account: what only root
// can do, and all that root does. A volume is new or was used by somebody else
// when its top belongs to another user; then everything in it is given away.
func (p Places) Own(h *Host, a config.Account) error {
	dirs := []string{p.DataDir, p.RunDir, p.Secrets}
	if h.Has(config.Repository) {
		dirs = append(dirs, p.Repo)
	}
	for _, d := range dirs {
		mode := os.FileMode(0o700)
		if d == p.DataDir {
			mode = 0o755 // configuration and logs may be read by others
		}
		if err := os.MkdirAll(d, mode); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := give(d, a); err != nil {
			return fmt.Errorf("give %s to user %s: %w", d, a.Name, err)
		}
	}
	return nil
}

func give(dir string, a config.Account) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if s, ok := st.Sys().(*syscall.Stat_t); ok && int(s.Uid) == a.UID {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, a.UID, a.GID)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}
