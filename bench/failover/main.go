// Command failover measures outages of a herd on this machine: it starts one,
// writes through its proxy over four connections, breaks something, and counts
// the longest interval between two acknowledged commits and the acknowledged
// commits that are missing afterwards on every node. Results go to
// bench/results/.
//
//	go run ./bench/failover -n 20 postmaster
//	go run ./bench/failover -n 20 host
//	go run ./bench/failover -n 10 standby
//	go run ./bench/failover -n 10 switchover
//	go run ./bench/failover -n 10 stop          (the primary's host, in order)
//	go run ./bench/failover -n 10 stop-standby
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"manada/bench/report"
	"manada/test/herdtest"
	"manada/test/measure"
)

// rivals are their defaults' figures on the same class of machine, in ms.
var rivals = map[string]struct {
	text string
	ms   float64
}{
	"postmaster": {"Patroni 4.1 defaults 8600 ms", 8600},
	"host":       {"Patroni 4.1 defaults 22000 ms", 22000},
	"switchover": {"Patroni 4.1 defaults 2600 ms", 2600},
}

func main() {
	n := flag.Int("n", 5, "runs")
	dir := flag.String("dir", "", "folder of the herd (default: a temporary one)")
	out := flag.String("out", "bench/results", "folder for the result")
	flag.Parse()
	if err := run(context.Background(), flag.Arg(0), *n, *dir, *out); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, what string, n int, dir, out string) error {
	ports, err := herdtest.OwnPorts()
	if err != nil {
		return err
	}
	h, err := herdtest.Start(ctx, "bin/manada", dir, ports...)
	if err != nil {
		return err
	}
	defer func() {
		if os.Getenv("KEEP") == "" {
			h.Remove()
		}
	}()
	r := report.New(what, n, fmt.Sprintf("go run ./bench/failover -n %d %s", n, what))
	for i := range n {
		if err := once(ctx, h, what, r); err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		fmt.Printf("run %2d  outage %5d ms  rejoin %5d ms  lost %d\n", i+1, r.Values[i], r.Rejoin[i], r.Lost)
	}
	r.P50 = slices.Sorted(slices.Values(r.Values))[n/2]
	if rival, ok := rivals[what]; ok && r.P50 > 0 {
		r.Rival, r.Ratio = rival.text, rival.ms/float64(r.P50)
	}
	return r.Write(out, "failover")
}

func once(ctx context.Context, h *herdtest.Herd, what string, r *report.Result) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	st, err := h.WaitSync(ctx)
	if err != nil {
		return err
	}
	if err := measure.Prepare(ctx, h.DSN()); err != nil {
		return err
	}
	w := measure.Start(ctx, h.DSN(), 0)
	defer w.Stop()
	if err := w.WaitAcked(ctx, 300); err != nil {
		return err
	}
	began := time.Now()
	victim := st.Primary
	switch what {
	case "postmaster":
		err = h.KillPostmaster(victim)
	case "host":
		err = h.KillHost(victim)
	case "standby":
		victim = st.Sync[0]
		err = h.KillHost(victim)
	case "stop", "stop-standby":
		if what == "stop-standby" {
			victim = st.Sync[0]
		}
		err = h.StopHost(ctx, victim)
	case "switchover":
		_, err = h.Manada(ctx, "switchover")
	default:
		err = fmt.Errorf("unknown scenario %q: postmaster, host, standby, switchover, stop or stop-standby", what)
	}
	if err != nil {
		return err
	}
	if what == "postmaster" || what == "host" || what == "stop" {
		if err := h.WaitOtherPrimary(ctx, victim); err != nil {
			return err
		}
	}
	if what == "standby" || what == "stop-standby" {
		if err := h.WaitAlone(ctx); err != nil {
			return err
		}
	}
	if err := w.WaitAcked(ctx, 300); err != nil {
		return err
	}
	back := time.Now()
	if what != "postmaster" && what != "switchover" {
		if err := h.StartHost(ctx, victim); err != nil {
			return err
		}
	}
	if _, err := h.WaitSync(ctx); err != nil {
		return err
	}
	r.Rejoin = append(r.Rejoin, time.Since(back).Milliseconds())
	if err := w.WaitAcked(ctx, 50); err != nil {
		return err
	}
	w.Stop()
	r.AddOutage(w, began)
	return lost(ctx, h, w, r)
}

// lost counts what is missing on every node.
func lost(ctx context.Context, h *herdtest.Herd, w *measure.Writer, r *report.Result) error {
	for _, node := range []string{"master", "slave"} {
		if err := h.WaitCaughtUp(ctx, node); err != nil {
			return err
		}
		missing, err := w.Lost(ctx, h.NodeDSN(node))
		if err != nil {
			return err
		}
		r.Lost += len(missing)
	}
	return nil
}
