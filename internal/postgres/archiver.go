package postgres

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// RestArchiver has this primary's archiver begin nothing more, so that its stop
// does not wait for the archive. What an archive_command is doing goes on. When no
// stop follows, PostgreSQL starts another archiver after a minute (pgarch.c).
func (i *Instance) RestArchiver(ctx context.Context) error {
	st, err := i.sup.Status(ctx)
	if err == nil && !st.Running {
		err = errors.New("postgres does not run")
	}
	var pids []int
	if err == nil {
		pids, err = i.children(st.PID, "archiver")
	}
	for _, pid := range pids {
		if e := syscall.Kill(pid, syscall.SIGTERM); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("rest the archiver: %w", err)
	}
	return nil
}
