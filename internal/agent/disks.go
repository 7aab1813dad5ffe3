package agent

import (
	"os"
	"path/filepath"
	"syscall"

	"manada/internal/cluster"
	"manada/internal/health"
)

// diskFree is under which a disk is full: two segments of WAL and a little, in
// bytes.
const diskFree = 48 << 20

// disks are the file systems on which this node writes: its state, the
// repository, PGDATA, pg_wal and every tablespace, each once.
func (a *Agent) disks() []cluster.Condition {
	paths := []string{a.cfg.StateDir, a.cfg.RepoPath}
	if a.db != nil {
		pgdata := a.db.Config().DataDir
		paths = append(paths, pgdata, a.wal)
		spaces, _ := filepath.Glob(filepath.Join(pgdata, "pg_tblspc", "*"))
		paths = append(paths, spaces...)
	}
	var cs []cluster.Condition
	seen := map[uint64]bool{}
	for _, p := range paths {
		if to, err := filepath.EvalSymlinks(p); err == nil {
			p = to
		}
		st, err := os.Stat(p)
		if err != nil {
			continue
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			if seen[uint64(sys.Dev)] {
				continue
			}
			seen[uint64(sys.Dev)] = true
		}
		if c, ok := diskCondition(a.cfg.Node, p); ok {
			cs = append(cs, c)
		}
	}
	return cs
}

func diskCondition(node, path string) (cluster.Condition, bool) {
	var st syscall.Statfs_t
	if path == "" || syscall.Statfs(path, &st) != nil || st.Blocks == 0 {
		return cluster.Condition{}, false
	}
	return judgeDisk(node, path, int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize, st.Files > 0 && st.Ffree == 0)
}

// judgeDisk: sizes in bytes; noFiles says that no file can be made any more.
func judgeDisk(node, path string, size, free int64, noFiles bool) (cluster.Condition, bool) {
	used := 100 - int(free*100/size)
	left := mib(free)
	if noFiles {
		left = "no inode"
	}
	if noFiles || free < min(diskFree, size/10) {
		return health.Say(health.DiskFull, node, "path", path, "free", left), true
	}
	return health.Say(health.DiskNearlyFull, node, "path", path, "free", left, "percent", used), used >= diskFull
}
