package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// Found makes the database cluster: initdb beside PGDATA, roles and the schema
// manada, all without opening a port (single-user mode), then the instance id,
// then a rename. Interrupted it leaves only PGDATA.new, which the next run
// discards. It does nothing when PGDATA was founded already, and refuses a
// directory that is neither empty nor ours. Whether the herd may be founded at
// all is the store's to say.
func (i *Instance) Found(ctx context.Context) error {
	return i.alone("initdb", func() error { return i.found(ctx) })
}

func (i *Instance) found(ctx context.Context) error {
	if p, err := i.Poison(); err != nil || p != nil {
		return errors.Join(err, fmt.Errorf("found database cluster: %w", ErrPoisoned))
	}
	state, err := i.CheckDataDir("")
	if err != nil {
		return fmt.Errorf("found database cluster: %w", err)
	}
	if state == DirCluster {
		if id, err := i.InstanceID(); err != nil || id != "" {
			return err
		}
		return fmt.Errorf("found database cluster: %s holds one already that is not of this herd", i.cfg.DataDir)
	}
	if mountPoint(i.cfg.DataDir) {
		return fmt.Errorf("found database cluster: %s is a mount point; use a folder in it, for example postgres.data_dir: %s/pgdata", i.cfg.DataDir, i.cfg.DataDir)
	}
	dir := i.cfg.DataDir + ".new"
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("discard interrupted initdb: %w", err)
	}
	begun := time.Now()
	if err := i.initdb(ctx, dir); err != nil {
		return err
	}
	if err := i.furnish(ctx, dir); err != nil {
		return err
	}
	if err := i.newInstanceID(dir, func(m *marks) { m.FormerPrimary, m.Served, m.Founded = false, false, true }); err != nil {
		return err
	}
	if err := i.swapIn(); err != nil {
		return err
	}
	i.log.Info("database cluster founded", "data_dir", i.cfg.DataDir, "ms", time.Since(begun).Milliseconds())
	return nil
}

func (i *Instance) initdb(ctx context.Context, dir string) error {
	pw := i.cfg.Passwords.Superuser
	if pw == "" {
		pw = rand.Text()
	}
	if strings.ContainsAny(pw, "\n\r\x00") {
		return errors.New("initdb: line break in the superuser's password")
	}
	pwfile := i.run("initdb.pw")
	if err := durable.Write(pwfile, []byte(pw+"\n"), durable.Options{}); err != nil {
		return err
	}
	defer os.Remove(pwfile)
	out, err := i.program(ctx, "initdb", nil, "-D", dir, "-U", cluster.RoleSuperuser, "-E", "UTF8",
		"--locale=C.UTF-8", "--lc-messages=C", "-k", "-A", "scram-sha-256", "--auth-local=peer",
		"--pwfile", pwfile, "--no-instructions").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, tail(out))
	}
	return writeDataDirConf(dir)
}

// furnish makes roles, the schema and what they may do. Functions by which
// waiting commits could be cancelled are taken from PUBLIC in every template.
func (i *Instance) furnish(ctx context.Context, dir string) error {
	for _, db := range []string{"template0", "template1"} {
		if err := i.single(ctx, dir, db, signalsRevoked); err != nil {
			return err
		}
	}
	var sql []string
	for _, f := range fixtures {
		sql = append(sql, f.make...)
	}
	passwords, err := i.passwords(nil, i.passwordsNow().byRole(), nil)
	if err != nil {
		return err
	}
	for _, f := range passwords {
		sql = append(sql, f.make...)
	}
	return i.single(ctx, dir, cluster.Database, sql)
}

// single runs statements in single-user mode, fed through standard input, so
// that no password is in an argument. It ends with a shutdown checkpoint.
func (i *Instance) single(ctx context.Context, dir, db string, sql []string) error {
	cmd := i.program(ctx, "postgres", nil, "--single", "-j", "-D", dir, "-c", "exit_on_error=on",
		"-c", "synchronous_commit=local", "-c", "log_min_error_statement=panic", db)
	cmd.Stdin = strings.NewReader(strings.Join(sql, ";\n\n") + ";\n\n")
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("furnish database %s: %w: %s", db, err, tail(out.Bytes()))
	}
	return nil
}

// program prepares one of PostgreSQL's programs: no terminal, no PG*
// environment of ours, ended when ctx ends.
func (i *Instance) program(ctx context.Context, name string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(i.cfg.BinDir, name), args...)
	cmd.Env = append(i.environ(), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The whole group: pg_rewind and pg_basebackup have children.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// environ is our environment without what steers libpq and locale. HOME is the
// run directory: libpq looks for certificates and passwords of the user below
// it, and fails when it may not, as after a change of user.
func (i *Instance) environ() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "LC_") && !strings.HasPrefix(e, "LANG") && !strings.HasPrefix(e, "HOME=") {
			out = append(out, e)
		}
	}
	return append(out, "LC_ALL=C.UTF-8", "LC_MESSAGES=C", "HOME="+i.cfg.RunDir)
}

// tail is the end of a program's output, for an error message.
func tail(b []byte) string {
	b = bytes.TrimSpace(b)
	return string(b[max(0, len(b)-600):])
}
