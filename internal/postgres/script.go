package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"manada/internal/cluster"
)

// Script runs one script of a user in a running database: *.sql and *.sql.gz
// through psql, *.sh through bash with PGHOST and its like set. It logs in as
// the superuser over the socket and ends at the first error.
func Script(ctx context.Context, file, socketDir string, port int, database string) (output string, err error) {
	psql := []string{"psql", "-X", "-v", "ON_ERROR_STOP=1", "--no-password"}
	var cmd *exec.Cmd
	switch {
	case strings.HasSuffix(file, ".sh"):
		cmd = exec.CommandContext(ctx, "bash", file)
	case strings.HasSuffix(file, ".sql"):
		cmd = exec.CommandContext(ctx, psql[0], append(psql[1:], "-f", file)...)
	case strings.HasSuffix(file, ".sql.gz"):
		cmd = exec.CommandContext(ctx, "bash", append([]string{"-c", `set -o pipefail; f=$1; shift; gzip -dc -- "$f" | "$@"`, "bash", file}, psql...)...)
	default:
		return "", fmt.Errorf("run %s: want *.sql, *.sql.gz or *.sh", filepath.Base(file))
	}
	cmd.Env = append(os.Environ(), "PGHOST="+socketDir, fmt.Sprint("PGPORT=", port), "PGUSER="+cluster.RoleSuperuser,
		"PGDATABASE="+database, "PGAPPNAME="+cluster.ServiceName("first-run", filepath.Base(file)))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %s: %w: %s", filepath.Base(file), err, tail(out.Bytes()))
	}
	return out.String(), nil
}
