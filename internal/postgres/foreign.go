package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// IgnoredFile in a data directory says that its owner knows of it: a herd may be
// founded beside it.
const IgnoredFile = "manada.ignored"

// foreignDepth is how deep images and packages keep data directories below the
// folder that is theirs: VOLUME/15/main, VOLUME/data/pgdata.
const foreignDepth = 4

// Foreign finds a data directory of PostgreSQL's that no herd made, in a folder
// or below it, and its version; "" when there is none. Its contents are not
// looked at.
func Foreign(root string) (dir, version string, err error) {
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || filepath.Base(path) == "lost+found" {
				return nil
			}
			return err // a folder that cannot be read may hold one
		}
		if !e.IsDir() {
			return nil
		}
		if b, err := os.ReadFile(filepath.Join(path, "PG_VERSION")); err == nil {
			if exists(path, instanceFile) || exists(path, IgnoredFile) {
				return fs.SkipDir
			}
			dir, version = path, strings.TrimSpace(string(b))
			return fs.SkipAll
		}
		if rel, _ := filepath.Rel(root, path); strings.Count(rel, "/") >= foreignDepth-1 {
			return fs.SkipDir
		}
		return nil
	})
	return dir, version, err
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}
