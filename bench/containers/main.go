// Command containers measures deploy/compose on a real Docker engine: how soon
// it commits synchronously, how long clients wait when a container is stopped or
// killed, and how large the image is. Four connections write through the proxy's
// published port and connect again at once; the figure of a run is the longest
// interval between two acknowledged commits. Rows that were acknowledged are
// looked for on both nodes. Results go to bench/results/.
//
//	go run ./bench/containers up          (5 runs)
//	go run ./bench/containers -n 10 stop-primary kill-primary kill-standby
//	go run ./bench/containers image
//	go run ./bench/containers             (all of them)
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"manada/bench/report"
	"manada/internal/cluster"
	"manada/test/dockertest"
	"manada/test/measure"
)

// bench is one measure on its way.
type bench struct{ *report.Result }

var bars = map[string]string{
	"up": "<= 30000 ms", "stop-primary": "median <= 2000 ms", "kill-primary": "median <= 3000 ms",
	"kill-standby": "each <= 3000 ms", "image": "<= 200000000 bytes",
}

func main() {
	n := flag.Int("n", 10, "runs of each")
	out := flag.String("out", "bench/results", "folder for the results")
	flag.Parse()
	what := flag.Args()
	if len(what) == 0 {
		what = []string{"image", "up", "stop-primary", "kill-primary", "kill-standby"}
	}
	if err := run(context.Background(), what, *n, *out); err != nil {
		fmt.Fprintln(os.Stderr, "containers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, what []string, n int, out string) error {
	for _, w := range what {
		if bars[w] == "" {
			return fmt.Errorf("unknown measure %q: up, stop-primary, kill-primary, kill-standby or image", w)
		}
	}
	stop, err := dockertest.Start(ctx, ".")
	if err != nil {
		return err
	}
	defer stop()
	for _, w := range what {
		r := bench{report.New(w, n, fmt.Sprintf("go run ./bench/containers -n %d %s", n, w))}
		r.Bar = bars[w]
		switch w {
		case "image":
			r.N, r.Unit = 1, "bytes"
			err = r.image(ctx)
		case "up":
			r.N = min(n, 5)
			err = r.up(ctx)
		default:
			err = r.outages(ctx)
		}
		if err == nil {
			err = r.Write(out, "containers")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	return nil
}

// image is the size of what a registry would hold: `docker save | gzip`.
func (r bench) image(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail; docker save manada:15 | gzip")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, out)
	if err != nil {
		return err
	}
	r.Values = []int64{n}
	return cmd.Wait()
}

// up is the time from `docker-compose up -d`, without volumes, to the first
// commit that a standby has: sought with the proxy's own log-in.
func (r bench) up(ctx context.Context) error {
	for i := range r.N {
		f, err := dockertest.Copy(ctx, ".")
		if err != nil {
			return err
		}
		took, err := firstCommit(ctx, f)
		f.Remove()
		if err != nil {
			return err
		}
		r.Values = append(r.Values, took.Milliseconds())
		fmt.Printf("run %2d  first synchronous commit after %d ms\n", i+1, took.Milliseconds())
	}
	return nil
}

func firstCommit(ctx context.Context, f *dockertest.Folder) (time.Duration, error) {
	began := time.Now()
	if _, err := f.Type(ctx, "docker-compose up -d"); err != nil {
		return 0, err
	}
	if _, err := f.Wait(ctx, "commits that wait for a standby", 2*time.Minute, func(s cluster.Status) bool {
		return s.Primary != "" && s.K >= 1 && len(s.Sync) >= 1
	}); err != nil {
		return 0, err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		dsn, err := f.DSN(ctx)
		if err == nil {
			_, err = dockertest.Query(ctx, dsn, "create table first_commit (i int)")
		}
		if err == nil {
			return time.Since(began), nil
		}
		if time.Now().After(end) {
			return 0, err
		}
	}
}

// outages breaks the herd once per run and mends it again.
func (r bench) outages(ctx context.Context) error {
	f, err := dockertest.Copy(ctx, ".")
	if err != nil {
		return err
	}
	defer f.Remove()
	if _, err := f.Type(ctx, "docker-compose up -d"); err != nil {
		return err
	}
	for i := range r.N {
		if err := r.once(ctx, f); err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		fmt.Printf("run %2d  %s  outage %5d ms  whole again after %5d ms  lost %d\n", i+1, r.What, r.Values[i], r.Rejoin[i], r.Lost)
	}
	return nil
}

func (r bench) once(ctx context.Context, f *dockertest.Folder) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	st, err := f.WaitWhole(ctx, time.Minute)
	if err != nil {
		return err
	}
	victim := containerOf(st.Primary)
	command := "docker kill " + victim
	switch r.What {
	case "stop-primary":
		command = "docker stop " + victim
	case "kill-standby":
		victim = containerOf(st.Sync[0])
		command = "docker kill " + victim
	}
	dsn, err := f.DSN(ctx)
	if err != nil {
		return err
	}
	if err := measure.Prepare(ctx, dsn); err != nil {
		return err
	}
	w := measure.Start(ctx, dsn, 0)
	defer w.Stop()
	if err := w.WaitAcked(ctx, 300); err != nil {
		return err
	}
	began := time.Now()
	if _, err := f.Type(ctx, command); err != nil {
		return err
	}
	if err := awaitAfter(ctx, f, victim, r.What); err != nil {
		return err
	}
	if err := w.WaitAcked(ctx, 300); err != nil {
		return err
	}
	back := time.Now()
	if _, err := f.Type(ctx, "docker start "+victim); err != nil {
		return err
	}
	if _, err := f.WaitWhole(ctx, 90*time.Second); err != nil {
		return err
	}
	r.Rejoin = append(r.Rejoin, time.Since(back).Milliseconds())
	if err := w.WaitAcked(ctx, 50); err != nil {
		return err
	}
	w.Stop()
	r.AddOutage(w, began)
	return r.lost(ctx, f, w)
}

// awaitAfter waits until what was broken has had its effect.
func awaitAfter(ctx context.Context, f *dockertest.Folder, victim, what string) error {
	_, err := f.Wait(ctx, "the herd to go on without "+victim, time.Minute, func(s cluster.Status) bool {
		if what == "kill-standby" {
			return s.Primary != "" && s.K == 0
		}
		return s.Primary != "" && containerOf(s.Primary) != victim
	})
	return err
}

func containerOf(node string) string {
	for c, n := range dockertest.Nodes {
		if n == node {
			return c
		}
	}
	return node
}

// lost counts what is missing on either node.
func (r bench) lost(ctx context.Context, f *dockertest.Folder, w *measure.Writer) error {
	for c := range dockertest.Nodes {
		if err := f.WaitCaughtUp(ctx, c); err != nil {
			return err
		}
		dsn, err := f.NodeDSN(ctx, c)
		if err != nil {
			return err
		}
		missing, err := w.Lost(ctx, dsn)
		if err != nil {
			return err
		}
		r.Lost += len(missing)
	}
	return nil
}
