package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"manada/internal/durable"
	"manada/internal/guardian/procfs"
)

// CutUpstream takes away what a walreceiver needs: the credential file of every
// epoch is unlinked, then primary_conninfo and restore_command are emptied on
// disk, then PostgreSQL is told. A receiver that is born after this cannot log
// in, whatever the startup process still believes; one that lives goes on
// until EndReceiver (finding C4).
func (i *Instance) CutUpstream(ctx context.Context) error {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	if err := i.removePassfiles(""); err != nil {
		return fmt.Errorf("cut upstream: %w", err)
	}
	if err := i.renderNoUpstream(); err != nil {
		return fmt.Errorf("cut upstream: %w", err)
	}
	if err := i.reloadIfRunning(ctx); err != nil {
		return fmt.Errorf("cut upstream: %w", err)
	}
	return nil
}

func (i *Instance) renderNoUpstream() error {
	return durable.Write(i.run(upstreamFile), []byte(upstreamConf("", "", "")), durable.Options{})
}

// removePassfiles unlinks the replication logins of all epochs but keep.
func (i *Instance) removePassfiles(keep string) error {
	files, err := os.ReadDir(i.cfg.RunDir) // one that cannot be read is not an empty one
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look for replication logins: %w", err)
	}
	for _, f := range files {
		if ours, _ := filepath.Match("replication.*.pgpass", f.Name()); ours && i.run(f.Name()) != keep {
			if err := durable.Remove(i.run(f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// receivers finds walreceivers in the process table. pg_stat_wal_receiver is no
// proof: it is empty while one is still connecting (finding C4).
func (i *Instance) receivers(postmaster int) ([]int, error) {
	return i.children(postmaster, "walreceiver")
}

func (i *Instance) children(postmaster int, kind string) ([]int, error) {
	children, err := procfs.Children(postmaster)
	if err != nil {
		return nil, fmt.Errorf("look for processes %q: %w", kind, err)
	}
	var out []int
	for _, pid := range children {
		if i.isKind(pid, kind) {
			out = append(out, pid)
		}
	}
	return out, nil
}

// isKind recognises an auxiliary process by its title,
// "postgres: [cluster_name: ]kind ...".
func (i *Instance) isKind(pid int, kind string) bool {
	t, ok := strings.CutPrefix(procfs.Title(pid), "postgres: ")
	if !ok {
		return false
	}
	t = strings.TrimPrefix(t, i.cfg.Node+": ")
	return strings.HasPrefix(t, kind)
}

// EndReceiver sends SIGTERM to every walreceiver and returns when the process
// table shows none. Call it after CutUpstream.
func (i *Instance) EndReceiver(ctx context.Context) error {
	told := map[int]time.Time{}
	err := poll(ctx, 2*time.Millisecond, func() (bool, error) {
		st, err := i.sup.Status(ctx)
		if err != nil || !st.Running && st.TreeEmpty {
			return err == nil, err
		}
		pids, err := i.receivers(st.PID)
		if err != nil {
			// A postmaster that dies between the two looks has no children to read.
			if errors.Is(err, os.ErrNotExist) {
				return false, nil
			}
			return false, err
		}
		for _, pid := range pids {
			if t, ok := told[pid]; ok && time.Since(t) < 200*time.Millisecond {
				continue
			}
			told[pid] = time.Now()
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return false, err
			}
		}
		return len(pids) == 0 && st.Running, nil
	})
	if err != nil {
		return fmt.Errorf("end walreceiver: %w", err)
	}
	return nil
}
