package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"manada/test/measure"
)

func (d *demo) pgbench(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, pgProgram("pgbench"), args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+d.h.Password(), "PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", d.h.Port("proxy", "sql")), "PGUSER=postgres", "PGDATABASE=postgres")
	return cmd
}

func (d *demo) load(ctx context.Context) error {
	out, err := d.pgbench(ctx, "-i", "-q", "-s", fmt.Sprint(d.scale)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	n, err := d.h.Value(ctx, d.h.DSN(), "select count(*) from pgbench_accounts")
	d.result("rows loaded", "%s", n)
	return err
}

// benchLoad runs pgbench until ctx ends; it is started again after a failover.
func (d *demo) benchLoad(ctx context.Context) {
	for ctx.Err() == nil {
		_ = d.pgbench(ctx, "-n", "-c", "2", "-T", "60").Run()
	}
}

func (d *demo) killPrimary(ctx context.Context) error {
	st, err := d.h.WaitSync(ctx)
	if err != nil {
		return err
	}
	old := st.Primary
	if err := measure.Prepare(ctx, d.h.DSN()); err != nil {
		return err
	}
	bench, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); d.benchLoad(bench) }()
	w := measure.Start(ctx, d.h.DSN(), 0)
	defer w.Stop()
	if err := w.WaitAcked(ctx, 1000); err != nil {
		return err
	}
	killed := time.Now()
	if err := d.h.KillPostmaster(old); err != nil {
		return err
	}
	if err := d.h.WaitOtherPrimary(ctx, old); err != nil {
		return err
	}
	if err := w.WaitAcked(ctx, 500); err != nil {
		return err
	}
	d.result("primary killed, outage as clients saw it", "%d ms", w.Outage(killed).Milliseconds())
	// The old primary comes back by itself.
	if _, err := d.h.WaitSync(ctx); err != nil {
		return err
	}
	d.result(old+" is a synchronous standby again after", "%.1f s, by itself", time.Since(killed).Seconds())
	if err := w.WaitAcked(ctx, 200); err != nil {
		return err
	}
	w.Stop()
	stop()
	<-done
	return d.countLost(ctx, w)
}

func (d *demo) countLost(ctx context.Context, w *measure.Writer) error {
	total := 0
	for _, node := range []string{"master", "slave"} {
		if err := d.h.WaitCaughtUp(ctx, node); err != nil {
			return err
		}
		lost, err := w.Lost(ctx, d.h.NodeDSN(node))
		if err != nil {
			return err
		}
		total += len(lost)
	}
	d.result("acknowledged commits lost", "%d of %d (looked for on both nodes)", total, w.Acked())
	if total > 0 {
		return errors.New("acknowledged commits were lost")
	}
	return nil
}

func (d *demo) failback(ctx context.Context) error {
	w := measure.Start(ctx, d.h.DSN(), 1_000_000_000)
	defer w.Stop()
	if err := w.WaitAcked(ctx, 200); err != nil {
		return err
	}
	began := time.Now()
	out, err := d.h.Manada(ctx, "failback")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if err := w.WaitAcked(ctx, 200); err != nil {
		return err
	}
	st, err := d.h.WaitSync(ctx)
	if err != nil {
		return err
	}
	w.Stop()
	d.result("failback to "+st.Primary+", longest gap between commits", "%d ms", w.Outage(began).Milliseconds())
	if !strings.Contains(st.Primary, "master") {
		return fmt.Errorf("the primary is %s, not the original master", st.Primary)
	}
	return d.countLost(ctx, w)
}
