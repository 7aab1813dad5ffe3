package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"manada/internal/datadir"
	"manada/internal/durable"
)

// DirState says what is at PGDATA.
type DirState string

const (
	DirAbsent  DirState = "absent"  // nothing, or an empty directory
	DirCluster DirState = "cluster" // a database cluster that we can run
)

var (
	// ErrForeignDir: PGDATA holds something that is no database cluster.
	ErrForeignDir = errors.New("not a PostgreSQL data directory")
	// ErrPoisoned: the directory is half made; only Rewind or Clone may touch it.
	ErrPoisoned = errors.New("data directory is half made")
	// ErrNeedClone: the directory cannot be rewound any more.
	ErrNeedClone = errors.New("data directory must be cloned")
)

// CheckDataDir looks at PGDATA without changing it. systemID, when not empty,
// is the identifier that the cluster must have.
func (i *Instance) CheckDataDir(systemID string) (DirState, error) {
	dir := i.cfg.DataDir
	holds, err := datadir.Holds(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && holds == "" {
		return DirAbsent, nil
	}
	if err != nil {
		return "", fmt.Errorf("look at data directory: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return "", fmt.Errorf("%s is %w and not empty (it holds %q): choose another postgres.data_dir, or empty it", dir, ErrForeignDir, holds)
	}
	major, err := Major(i.cfg.BinDir)
	if err != nil {
		return "", err
	}
	if have, _ := strconv.Atoi(strings.TrimSpace(string(b))); have != major {
		return "", fmt.Errorf("%s was made by PostgreSQL %d, the programs in %s are %d: install PostgreSQL %d, or upgrade with pg_upgrade", dir, have, i.cfg.BinDir, major, have)
	}
	if err := checkOwner(dir); err != nil {
		return "", err
	}
	c, err := ReadControl(dir)
	if err != nil {
		return "", err
	}
	if systemID != "" && c.SystemID != systemID {
		return "", fmt.Errorf("%s belongs to another database system (%s, the herd's is %s): choose another postgres.data_dir, or move it away", dir, c.SystemID, systemID)
	}
	return DirCluster, nil
}

func checkOwner(dir string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, manada runs as %d: chown it, or run manada as its owner", dir, st.Uid, os.Geteuid())
	}
	if m := st.Mode & 0o777; m&0o027 != 0 {
		return fmt.Errorf("%s has mode %04o, PostgreSQL wants 0700 or 0750: chmod 0700 %s", dir, m, dir)
	}
	return nil
}

// mountPoint says whether dir is one; such a directory cannot be renamed.
func mountPoint(dir string) bool {
	var a, b syscall.Stat_t
	return syscall.Stat(dir, &a) == nil && syscall.Stat(filepath.Dir(dir), &b) == nil && a.Dev != b.Dev
}

// swapIn makes dir+".new" the data directory. Whoever is interrupted in the
// middle has the poison mark, or no data directory yet, and starts over.
func (i *Instance) swapIn() error {
	dir := i.cfg.DataDir
	old := dir + ".old"
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove old data directory: %w", err)
	}
	if err := durable.Rename(dir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("move old data directory away: %w", err)
	}
	if err := durable.Rename(dir+".new", dir); err != nil {
		return fmt.Errorf("put new data directory in place: %w", err)
	}
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove old data directory: %w", err)
	}
	return nil
}

// emptyOut removes what is in a directory, but not the directory.
func emptyOut(dir string) error {
	e, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range e {
		if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}
