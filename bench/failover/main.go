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
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"manada/test/herdtest"
	"manada/test/measure"
)

type result struct {
	What    string         `json:"what"`
	Commit  string         `json:"commit"`
	N       int            `json:"n"`
	P50     int64          `json:"p50"`
	P95     int64          `json:"p95"`
	Max     int64          `json:"max"`
	Unit    string         `json:"unit"`
	Values  []int64        `json:"values"`
	Lost    int            `json:"lost"`
	Acked   int            `json:"acked"`
	Errors  int            `json:"client_errors"`
	Rejoin  []int64        `json:"rejoin_ms"`
	Rival   string         `json:"rival"`
	Ratio   float64        `json:"ratio"`
	Seen    map[string]int `json:"errors_seen"`
	Command string         `json:"command"`
}

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
	h, err := herdtest.Start(ctx, "bin/manada", dir)
	if err != nil {
		return err
	}
	defer func() {
		if os.Getenv("KEEP") == "" {
			h.Remove()
		}
	}()
	r := result{What: what, N: n, Unit: "ms", Seen: map[string]int{}, Command: fmt.Sprintf("go run ./bench/failover -n %d %s", n, what)}
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	r.Commit = strings.TrimSpace(string(commit))
	for i := range n {
		if err := once(ctx, h, what, &r); err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		fmt.Printf("run %2d  outage %5d ms  rejoin %5d ms  lost %d\n", i+1, r.Values[i], r.Rejoin[i], r.Lost)
	}
	return r.write(out)
}

func once(ctx context.Context, h *herdtest.Herd, what string, r *result) error {
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
	return r.add(ctx, h, w, began)
}

// add counts the outage and what is missing on every node.
func (r *result) add(ctx context.Context, h *herdtest.Herd, w *measure.Writer, began time.Time) error {
	r.Values = append(r.Values, w.Outage(began).Milliseconds())
	r.Acked += w.Acked()
	r.Errors += w.ErrorCount()
	for k, n := range w.Errors() {
		r.Seen[k] += n
	}
	for _, node := range []string{"master", "slave"} {
		if err := h.WaitCaughtUp(ctx, node); err != nil {
			return err
		}
		lost, err := w.Lost(ctx, h.NodeDSN(node))
		if err != nil {
			return err
		}
		r.Lost += len(lost)
	}
	return nil
}

func (r *result) write(dir string) error {
	v := slices.Sorted(slices.Values(r.Values))
	r.P50, r.P95, r.Max = v[len(v)/2], v[min(len(v)-1, len(v)*95/100)], v[len(v)-1]
	if rival, ok := rivals[r.What]; ok && r.P50 > 0 {
		r.Rival, r.Ratio = rival.text, rival.ms/float64(r.P50)
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, "failover-"+r.What+".json")
	fmt.Printf("%s: n %d  median %d ms  max %d ms  lost %d of %d acknowledged  -> %s\n", r.What, r.N, r.P50, r.Max, r.Lost, r.Acked, path)
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
