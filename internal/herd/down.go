package herd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"manada/internal/config"
	"manada/internal/guardian"
	"manada/internal/guardian/procfs"
	"manada/internal/supervisor"
)

// stopWithin bounds the orderly stop of one host.
const stopWithin = 90 * time.Second

// Down stops the herd: the proxy, the standbys, the primary, the witness. The
// primary's data is then the newest, and its agent the last open leader. It
// returns how many hosts ran, and only when nothing of the herd runs any more.
func Down(ctx context.Context, h *Herd, o Options) (stopped int, err error) {
	unlock, err := lockDir(&o)
	if err != nil {
		return 0, err
	}
	defer unlock()
	for _, x := range h.stopOrder(ctx) {
		was, err := x.stop(ctx, o)
		if err != nil {
			return stopped, err
		}
		if was {
			stopped++
			o.Say("host %s stopped", x.Name)
		}
	}
	return stopped, h.verifyGone()
}

// stopOrder asks who is the primary; when nobody answers the founder counts as
// it.
func (h *Herd) stopOrder(ctx context.Context) []*Host {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	primary := h.Hosts[0].Name
	if s, err := h.Status(ctx); err == nil && s.Primary != "" {
		primary = s.Primary
	}
	rank := func(x *Host) int {
		switch {
		case !x.Cfg.HasAgent():
			return 0
		case x.Cfg.Has(config.Database) && x.Name != primary:
			return 1
		case x.Name == primary:
			return 2
		}
		return 3 // the primary archives its last segment there
	}
	order := slices.Clone(h.Hosts)
	slices.SortStableFunc(order, func(a, b *Host) int { return rank(a) - rank(b) })
	return order
}

// Processes asks the host's supervisor.
func (x *Host) Processes() (supervisor.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // detached: a local socket, a second
	defer cancel()
	return supervisor.Ask(ctx, x.Cfg.ControlSocket(), "status")
}

// stop ends a host; what outlived its supervisor is ended too.
func (x *Host) stop(ctx context.Context, o Options) (was bool, err error) {
	holder, held, err := supervisor.LockedBy(x.Cfg.LockFile())
	if err != nil {
		return false, err
	}
	if held && holder.Alive() {
		was = true
		if err := syscall.Kill(holder.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return true, fmt.Errorf("stop host %s: %w", x.Name, err)
		}
		if err := x.awaitEnd(ctx, holder, o); err != nil {
			return true, err
		}
	}
	if left := x.leftovers(); len(left) > 0 {
		was = true
		if err := EndDatabase(ctx, x.Cfg); err != nil {
			return was, fmt.Errorf("stop host %s: %w", x.Name, err)
		}
	}
	return was, nil
}

// awaitEnd waits for the supervisor; one that does not end in time is killed,
// and its processes die with it.
func (x *Host) awaitEnd(ctx context.Context, holder supervisor.Holder, o Options) error {
	deadline := time.Now().Add(stopWithin)
	tell := time.Now().Add(5 * time.Second)
	for holder.Alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(tell) {
			tell = time.Now().Add(10 * time.Second)
			o.Say("waiting for host %s to stop", x.Name)
		}
		if time.Now().After(deadline) {
			o.Say("host %s did not stop in %s and is killed", x.Name, stopWithin)
			_ = syscall.Kill(holder.PID, syscall.SIGKILL)
			deadline = deadline.Add(stopWithin)
		}
	}
	return nil
}

// leftovers are the processes of the host's PostgreSQL and its guardian.
func (x *Host) leftovers() []int {
	if !x.Cfg.Has(config.Database) {
		return nil
	}
	var pids []int
	if dir, err := procfs.Dir(x.Cfg.PGData()); err == nil {
		tree, _ := procfs.Tree(dir, 0)
		for _, p := range tree {
			pids = append(pids, p.PID)
		}
	}
	if st, err := askGuardian(x.Cfg); err == nil {
		pids = append(pids, st.Guardian)
	}
	return pids
}

func guardianClient(c *config.Config) *guardian.Client {
	path, err := guardian.SocketPath(c.RunDir)
	if err != nil {
		path = filepath.Join(c.RunDir, "guardian.sock")
	}
	return guardian.NewClient(path)
}

func askGuardian(c *config.Config) (guardian.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // detached: a local socket, a second
	defer cancel()
	return guardianClient(c).Status(ctx)
}

// EndDatabase ends the PostgreSQL of a host whose agent does not run any more,
// and its guardian: fast, then at once, then by force. Nothing there is no
// error. A commit that was acknowledged is safe in each case.
func EndDatabase(ctx context.Context, c *config.Config) error {
	g := guardianClient(c)
	st, err := g.Status(ctx)
	if err != nil {
		return endOrphans(ctx, c)
	}
	keeper, _ := procfs.Read(st.Guardian)
	for _, step := range []struct {
		mode   guardian.StopMode
		within time.Duration
	}{{guardian.Fast, 30 * time.Second}, {guardian.Immediate, 10 * time.Second}, {"kill", 10 * time.Second}} {
		var err error
		if step.mode == "kill" {
			err = g.KillTree(ctx)
		} else {
			err = g.Stop(ctx, step.mode)
		}
		if errors.Is(err, guardian.ErrGone) {
			return endOrphans(ctx, c)
		}
		wait, cancel := context.WithTimeout(ctx, step.within)
		err = g.WaitEmpty(wait)
		cancel()
		if err == nil {
			return endGuardian(ctx, g, keeper)
		}
	}
	return fmt.Errorf("PostgreSQL in %s cannot be ended", c.PGData())
}

// endGuardian tells the guardian to quit and waits until that process is gone.
func endGuardian(ctx context.Context, g *guardian.Client, keeper procfs.Proc) error {
	if err := g.Quit(ctx); err != nil && !errors.Is(err, guardian.ErrGone) {
		return fmt.Errorf("end guardian: %w", err)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if now, err := procfs.Read(keeper.PID); err != nil || now.Start != keeper.Start || now.Dead() {
			return nil
		}
	}
	return fmt.Errorf("end guardian: process %d does not end", keeper.PID)
}

// endOrphans ends a PostgreSQL without a guardian: by the postmaster, then one
// by one.
func endOrphans(ctx context.Context, c *config.Config) error {
	dir, err := procfs.Dir(c.PGData())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for n, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		tree, err := procfs.Tree(dir, 0)
		if err != nil {
			return err
		}
		if len(tree) == 0 {
			return nil
		}
		for _, p := range tree {
			if n == 2 || isPostmaster(c, p.PID) {
				_ = syscall.Kill(p.PID, sig)
			}
		}
		if waitEmpty(ctx, dir, []time.Duration{30, 10, 10}[n]*time.Second) {
			return nil
		}
	}
	return fmt.Errorf("PostgreSQL in %s cannot be ended", c.PGData())
}

// isPostmaster says whether postmaster.pid names the process, of which the
// caller knows that it is PostgreSQL's and stands in this directory.
func isPostmaster(c *config.Config, pid int) bool {
	b, err := os.ReadFile(filepath.Join(c.PGData(), "postmaster.pid"))
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(first) == fmt.Sprint(pid)
}

func waitEmpty(ctx context.Context, dir procfs.DirID, within time.Duration) bool {
	for end := time.Now().Add(within); ; {
		if tree, err := procfs.Tree(dir, 0); err == nil && len(tree) == 0 {
			return true
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return false
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// verifyGone looks for anything of the herd that still runs.
func (h *Herd) verifyGone() error {
	var left []string
	for _, x := range h.Hosts {
		if holder, held, _ := supervisor.LockedBy(x.Cfg.LockFile()); held {
			left = append(left, fmt.Sprintf("supervisor of %s (pid %d)", x.Name, holder.PID))
		}
		for _, pid := range x.leftovers() {
			left = append(left, fmt.Sprintf("%s of %s (pid %d)", procfs.Title(pid), x.Name, pid))
		}
	}
	if len(left) > 0 {
		return errors.New("still running: " + strings.Join(left, ", "))
	}
	return nil
}

// Wipe removes the herd's data, and its folder when nothing else is in it. It
// refuses while anything of it runs.
func Wipe(h *Herd, o Options) error {
	unlock, err := lockDir(&o)
	if err != nil {
		return err
	}
	defer unlock()
	if err := h.verifyGone(); err != nil {
		return fmt.Errorf("remove herd: %w", err)
	}
	for _, x := range h.Hosts {
		dirs := []string{filepath.Join(h.File.Data, x.Name)}
		if r := runBase(h.File.Data); r != "" {
			dirs = append(dirs, r)
		}
		for _, d := range dirs {
			if err := os.RemoveAll(d); err != nil {
				return fmt.Errorf("remove herd: %w", err)
			}
		}
	}
	// herd.json goes after the data: until then the next Wipe finds the rest.
	for _, f := range []string{filepath.Join(h.File.Data, "bin"), filepath.Join(h.File.Data, ownerFile),
		filepath.Join(h.Dir, "pgpass"), filepath.Join(h.Dir, config.HerdFileName), filepath.Join(h.Dir, "herd.lock")} {
		if err := os.RemoveAll(f); err != nil {
			return fmt.Errorf("remove herd: %w", err)
		}
	}
	for _, d := range []string{h.File.Data, h.Dir} {
		_ = os.Remove(d) // only when nothing else is in it
	}
	return nil
}
