package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
	"manada/internal/guardian"
	"manada/internal/guardian/procfs"
)

// StartStandby starts PostgreSQL as a standby with the upstream that Follow
// rendered last (none while a promise stands) and the placeholder in
// synchronous_standby_names. It returns once connections are accepted. When ctx
// ends before, an error is returned and PostgreSQL goes on starting. It is
// nothing to do when PostgreSQL runs.
func (i *Instance) StartStandby(ctx context.Context) error {
	return i.start(ctx, "start as a standby", func() error {
		if err := i.dropTrailingFillers(); err != nil {
			return err
		}
		if err := durable.Remove(filepath.Join(i.cfg.DataDir, "recovery.signal")); err != nil {
			return err
		}
		return durable.Write(filepath.Join(i.cfg.DataDir, "standby.signal"), nil, durable.Options{})
	})
}

// StartFounding starts PostgreSQL as a primary without a promotion: only ever
// for the first epoch, right after Found (or a restore). It may be repeated
// until the first epoch was opened (SetSync to anything but the placeholder),
// for nothing was acknowledged before; never after (finding H8).
func (i *Instance) StartFounding(ctx context.Context) error {
	m, err := i.readMarks()
	if err != nil {
		return err
	}
	if m.FormerPrimary && (m.LedEpoch > 1 || m.Served) {
		return errors.New("start postgres: this directory has led already; it comes back as a standby")
	}
	return i.start(ctx, "founding start", func() error {
		if err := durable.Remove(filepath.Join(i.cfg.DataDir, "standby.signal")); err != nil {
			return err
		}
		return i.SetLedEpoch(1)
	})
}

func (i *Instance) start(ctx context.Context, what string, role func() error) error {
	return i.alone(what, func() error { return i.startAs(ctx, role) })
}

func (i *Instance) startAs(ctx context.Context, role func() error) error {
	st, err := i.sup.Status(ctx)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	if !st.Running {
		if err := i.prepare(); err != nil {
			return fmt.Errorf("start postgres: %w", err)
		}
		if err := role(); err != nil {
			return fmt.Errorf("start postgres: %w", err)
		}
		if _, err := i.sup.Start(ctx, i.startSpec()); err != nil {
			return err
		}
	}
	return i.waitAccepting(ctx)
}

func (i *Instance) startSpec() guardian.StartSpec {
	argv := []string{filepath.Join(i.cfg.BinDir, "postgres"), "-D", i.cfg.DataDir,
		"-c", "config_file=" + i.run(confFile), "-c", "hba_file=" + i.run(hbaFile), "-c", "ident_file=" + i.run(identFile)}
	for _, s := range unshakeable {
		argv = append(argv, "-c", s)
	}
	return guardian.StartSpec{Argv: argv, Env: i.environ(), Dir: "/", Log: i.cfg.LogFile}
}

// prepare makes the directory and the configuration ready for any start.
func (i *Instance) prepare() error {
	if p, err := i.Poison(); err != nil {
		return err
	} else if p != nil {
		return fmt.Errorf("%w (%s from %s was interrupted)", ErrPoisoned, p.What, p.From)
	}
	state, err := i.CheckDataDir("")
	if err != nil {
		return err
	}
	if state != DirCluster {
		return fmt.Errorf("%s holds no database cluster", i.cfg.DataDir)
	}
	i.main.close()
	i.furnisher.session.close()
	i.probe.reset()
	if err := i.sweep(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(i.cfg.LogFile), 0o700); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	i.confMu.Lock()
	defer i.confMu.Unlock()
	if _, err := i.render(); err != nil {
		return err
	}
	if err := i.putBackFiles(); err != nil {
		return err
	}
	// Every start begins with the placeholder (finding C5), and without an
	// upstream while a promise stands (finding H3).
	if err := durable.Write(i.run(syncFile), []byte(syncConf(cluster.HoldCommits())), durable.Options{}); err != nil {
		return err
	}
	promise, err := i.Promise()
	if err != nil {
		return err
	}
	if promise != nil {
		if err := i.renderNoUpstream(); err != nil {
			return err
		}
	}
	if err := i.renderRecovery(); err != nil {
		return err
	}
	i.removeStaleSocket()
	return nil
}

// sweep removes files that a crash has left unfinished where we write in PGDATA.
// PostgreSQL does not run, so nobody writes there.
func (i *Instance) sweep() error {
	for _, dir := range []string{i.cfg.DataDir, filepath.Join(i.cfg.DataDir, "pg_wal")} {
		left, err := filepath.Glob(filepath.Join(dir, "*"+durable.TempMark))
		if err != nil {
			return err
		}
		for _, f := range left {
			if err := durable.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeStaleSocket: a lock file with a pid that is somebody else's by now
// keeps PostgreSQL from starting; the guardian holds the real lock.
func (i *Instance) removeStaleSocket() {
	lock := filepath.Join(i.socketDir, fmt.Sprintf(".s.PGSQL.%d.lock", i.cfg.Port))
	b, err := os.ReadFile(lock)
	if err != nil {
		return
	}
	pid, _ := strconv.Atoi(strings.SplitN(string(b), "\n", 2)[0])
	if procfs.Exe(pid) != "postgres" {
		os.Remove(lock)
		os.Remove(strings.TrimSuffix(lock, ".lock"))
	}
}

// putBackFiles repairs the files in PGDATA that we own: the placeholder
// configuration and, in postgresql.auto.conf, lines for protected settings.
func (i *Instance) putBackFiles() error {
	path := filepath.Join(i.cfg.DataDir, "postgresql.conf")
	if b, err := os.ReadFile(path); err != nil || string(b) != placeholderConf() {
		if err := durable.Write(path, []byte(placeholderConf()), durable.Options{}); err != nil {
			return err
		}
	}
	auto := filepath.Join(i.cfg.DataDir, "postgresql.auto.conf")
	b, err := os.ReadFile(auto)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read postgresql.auto.conf: %w", err)
	}
	kept, dropped := scrubAuto(string(b))
	if len(dropped) == 0 {
		return nil
	}
	i.log.Warn("settings removed from postgresql.auto.conf", "settings", dropped)
	return durable.Write(auto, []byte(kept), durable.Options{})
}

func scrubAuto(text string) (kept string, dropped []string) {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		value = strings.Trim(strings.TrimSpace(value), "'")
		if !strings.HasPrefix(name, "#") && CheckParams(map[string]string{name: value}) != nil && name != "" {
			dropped = append(dropped, name)
			continue
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n"), dropped
}

// pidFile reads the postmaster's own pid file: its pid and status line
// ("starting", "stopping", "ready", "standby").
func (i *Instance) pidFile() (pid int, status string) {
	b, err := os.ReadFile(filepath.Join(i.cfg.DataDir, "postmaster.pid"))
	if err != nil {
		return 0, ""
	}
	l := strings.Split(string(b), "\n")
	pid, _ = strconv.Atoi(strings.TrimSpace(l[0]))
	if len(l) > 7 {
		status = strings.TrimSpace(l[7])
	}
	return pid, status
}

// waitHandlers waits until the postmaster has installed its signal handlers; it
// has when its pid file exists.
func (i *Instance) waitHandlers(ctx context.Context, pid int) error {
	return poll(ctx, 2*time.Millisecond, func() (bool, error) {
		if p, _ := i.pidFile(); p == pid {
			return true, nil
		}
		st, err := i.sup.Status(ctx)
		return err == nil && !st.Running, err
	})
}

// waitAccepting waits until connections are accepted or the postmaster ends.
func (i *Instance) waitAccepting(ctx context.Context) error {
	err := poll(ctx, 5*time.Millisecond, func() (bool, error) {
		if _, status := i.pidFile(); status == "ready" || status == "standby" {
			if _, err := i.query(ctx, "select 1"); err == nil {
				return true, nil
			}
		}
		st, err := i.sup.Status(ctx)
		if err == nil && !st.Running {
			err = fmt.Errorf("postgres ended while starting (%s): %s", st.Exit, i.logTail())
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	return nil
}

// logTail is what the end of PostgreSQL's log says is wrong, for an error message.
func (i *Instance) logTail() string {
	f, err := os.Open(i.cfg.LogFile)
	if err != nil {
		return "no log: " + err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 1500 {
		_, _ = f.Seek(-1500, 2)
	}
	b := make([]byte, 1500)
	n, _ := f.Read(b)
	var grave []string
	for line := range strings.SplitSeq(string(b[:n]), "\n") {
		if at := graveLine.FindStringIndex(line); at != nil {
			grave = append(grave, strings.TrimSpace(line[at[0]:]))
		}
	}
	if len(grave) == 0 {
		return strings.TrimSpace(string(b[:n]))
	}
	return strings.Join(grave, "; ")
}

var graveLine = regexp.MustCompile(`(FATAL|PANIC|ERROR|DETAIL|HINT|LOG:  could not).*`)

// Stop ends PostgreSQL and returns only when its process tree is verified
// empty: in the given mode for limit, then immediately for 3 s, then by force.
// Commits that wait for a standby are never released as successes by it,
// except that a fast stop tells their clients with a warning (trap T7).
func (i *Instance) Stop(ctx context.Context, mode guardian.StopMode, limit time.Duration) error {
	return i.alone("stop", func() error { return i.stop(ctx, mode, limit) })
}

func (i *Instance) stop(ctx context.Context, mode guardian.StopMode, limit time.Duration) error {
	begun := time.Now()
	i.main.close()
	type step struct {
		ask   func(context.Context) error
		limit time.Duration
		name  string
	}
	immediate := func(ctx context.Context) error { return i.sup.Stop(ctx, guardian.Immediate) }
	steps := []step{{func(ctx context.Context) error { return i.sup.Stop(ctx, mode) }, limit, string(mode)}}
	if mode != guardian.Immediate {
		steps = append(steps, step{immediate, 3 * time.Second, "immediate"})
	}
	steps = append(steps, step{i.sup.KillTree, 0, "kill"})
	for _, s := range steps {
		if err := s.ask(ctx); err != nil {
			return fmt.Errorf("stop postgres: %w", err)
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		if s.limit > 0 {
			wait, cancel = context.WithTimeout(ctx, s.limit)
		}
		err := i.sup.WaitEmpty(wait)
		cancel()
		if err == nil {
			i.probe.reset()
			i.log.Info("postgres stopped", "mode", s.name, "ms", time.Since(begun).Milliseconds())
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stop postgres: %w", err)
		}
	}
	return errors.New("stop postgres: processes survive")
}
