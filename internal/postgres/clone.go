package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// Clone makes the data directory anew with pg_basebackup from the source, beside
// the old one and swapped in when complete; in its place when there is no room
// for both (or PGDATA is a mount point), which the log says. The poison mark is
// set first and cleared last; interrupted, the next run starts over.
func (i *Instance) Clone(ctx context.Context, s Source, progress Progress) error {
	if err := i.alone("clone", func() error { return i.clone(ctx, s, progress) }); err != nil {
		return fmt.Errorf("clone from %s: %w", s.Node, err)
	}
	return nil
}

func (i *Instance) clone(ctx context.Context, s Source, progress Progress) error {
	begun := time.Now()
	if err := i.mustBeDown(ctx); err != nil {
		return err
	}
	poison, err := i.Poison()
	if err != nil {
		return err
	}
	systemID := ""
	if poison == nil {
		state, err := i.CheckDataDir("")
		if err != nil {
			return err
		}
		if state == DirCluster {
			c, err := ReadControl(i.cfg.DataDir)
			if err != nil {
				return err
			}
			systemID = c.SystemID
		}
	}
	name := cluster.ServiceName("clone", i.cfg.Node)
	if err := i.checkSource(ctx, s, name, systemID); err != nil {
		return err
	}
	spaces, err := i.sourceSpaces(ctx, s, name)
	if err != nil {
		return err
	}
	own := i.ownSpaces(poison)
	if err := i.placeSpaces(spaces, own); err != nil {
		return err
	}
	if err := i.setPoison(Poison{What: "clone", From: s.Node, Touched: true, Spaces: withPlaces(own, spaces)}); err != nil {
		return err
	}
	dir, err := i.cloneTarget(ctx, s, name)
	if err != nil {
		return err
	}
	if err := i.emptySpaces(own, spaces); err != nil {
		return err
	}
	if err := i.runBasebackup(ctx, s, name, dir, spaces, progress); err != nil {
		return err
	}
	if err := settleSpaces(dir, spaces); err != nil {
		return err
	}
	if err := i.checkSource(ctx, s, name, systemID); err != nil {
		return err
	}
	if err := i.finishRemake(dir, s.Epoch); err != nil {
		return err
	}
	if err := i.updateMarks(func(m *marks) { m.Rewound, m.RewoundIn = 0, 0 }); err != nil {
		return err
	}
	if dir != i.cfg.DataDir {
		if err := i.swapIn(); err != nil {
			return err
		}
	}
	if err := durable.Remove(i.restoreMarkPath()); err != nil { // it speaks of the directory that was
		return err
	}
	i.log.Info("cloned", "from", s.Node, "ms", time.Since(begun).Milliseconds())
	return i.clearPoison()
}

// cloneTarget chooses where the copy goes and clears the place.
func (i *Instance) cloneTarget(ctx context.Context, s Source, name string) (string, error) {
	beside := i.cfg.DataDir + ".new"
	for _, d := range []string{beside, i.cfg.DataDir + ".old"} {
		if err := os.RemoveAll(d); err != nil {
			return "", fmt.Errorf("discard interrupted clone: %w", err)
		}
	}
	inPlace := mountPoint(i.cfg.DataDir)
	if !inPlace {
		if e, err := os.ReadDir(i.cfg.DataDir); err == nil && len(e) > 0 {
			need, err := i.sourceSize(ctx, s, name)
			if err != nil {
				return "", err
			}
			inPlace = free(filepath.Dir(i.cfg.DataDir)) < need
		}
	}
	if !inPlace {
		return beside, nil
	}
	i.log.Warn("old data directory is removed before the clone: no room beside it", "data_dir", i.cfg.DataDir)
	return i.cfg.DataDir, emptyOut(i.cfg.DataDir)
}

// sourceSize estimates the room that a copy takes, with some to spare, in bytes.
func (i *Instance) sourceSize(ctx context.Context, s Source, name string) (int64, error) {
	c, err := i.connectSource(ctx, s, name)
	if err != nil {
		return 0, err
	}
	defer c.Conn().Close()
	r, err := run(ctx, c, "select sum(pg_database_size(oid)) from pg_database")
	if err != nil {
		return 0, fmt.Errorf("ask source %s for its size: %w", s.Node, err)
	}
	n := intOf(r[0][0][0])
	return n + n/20 + 256<<20, nil
}

// free bytes on the file system of a directory; a huge number when unknown.
func free(dir string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return 1 << 62
	}
	return int64(st.Bavail) * st.Bsize
}

func (i *Instance) runBasebackup(ctx context.Context, s Source, name, dir string, spaces []space, progress Progress) error {
	if err := os.MkdirAll(i.cfg.RunDir, 0o700); err != nil {
		return err
	}
	return i.withPassfile("clone", s.Node, cluster.RoleReplication, i.passwordsNow().Replication, func(pass string) error {
		info, err := i.conninfo(s.Endpoint, cluster.RoleReplication, name, pass)
		if err != nil {
			return err
		}
		args := append([]string{"-D", dir, "-X", "stream", "-c", "fast", "-P", "-w", "-d", info}, spaceArgs(spaces)...)
		said, err := runWithProgress(i.program(ctx, "pg_basebackup", nil, args...), progress)
		if err != nil {
			return fmt.Errorf("pg_basebackup: %w: %s", err, said)
		}
		if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("pg_basebackup left no data directory: %s", said)
		}
		return nil
	})
}
