// Command proxy measures the proxy beside PgBouncer, pgpool-II and a relay that does
// nothing, which is the floor: in turns of 100 ms within each run, medians of the runs.
// What counts is the processor time of the pooler's process, which another load on the
// machine changes less than transactions per second. Log-ins are outside of what is
// measured. The result goes to bench/results/proxy.json.
//
//	bench/proxy/rivals.sh DIR                     (once, as root)
//	go run ./bench/proxy -rivals DIR              (as root: PgBouncer runs in its root)
//	go run ./bench/proxy -rivals DIR -n 1 -rows 'simple|latency'
//	go run ./bench/proxy -stay                    (without -rivals: Manada and the floor alone)
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
)

var (
	seconds = flag.Int("seconds", 3, "how long each is measured, in all")
	runs    = flag.Int("n", 5, "runs; the medians are shown")
	rivals  = flag.String("rivals", "", "folder that rivals.sh made")
	which   = flag.String("rows", ".", "regular expression of the rows")
	whom    = flag.String("targets", ".", "regular expression of the targets")
	crowded = flag.Bool("crowded", true, "also what needs 10,000 clients")
	out     = flag.String("out", "bench/results", "folder for the result")
	stay    = flag.Bool("stay", false, "measure nothing: show what runs where, and wait, for profilers")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	if len(os.Args) == 7 && os.Args[1] == "serve" {
		err = serve(ctx, os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6])
	} else {
		flag.Parse()
		err = bench(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context) error {
	match, err := regexp.Compile(*which)
	if err != nil {
		return err
	}
	whoms, err := regexp.Compile(*whom)
	if err != nil {
		return err
	}
	if err := moreFiles(); err != nil {
		return err
	}
	s, err := newStage(ctx)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	targets, err := s.targets(ctx)
	if err != nil {
		return err
	}
	targets = slices.DeleteFunc(targets, func(t target) bool { return !whoms.MatchString(t.name) })
	if *stay {
		for _, t := range targets {
			fmt.Printf("%-12s %s pid %d\n", t.name, t.addr, t.pid)
		}
		<-ctx.Done()
		return nil
	}
	r := newResult()
	for i := range *runs {
		for _, row := range rows() {
			if !match.MatchString(row.name) || row.crowded && (i > 0 || !*crowded) {
				continue
			}
			if err := once(ctx, s, row, targets, r); err != nil {
				return err
			}
		}
		if r.N = i + 1; r.N < *runs {
			fmt.Fprintf(os.Stderr, "run %d of %d\n", r.N, *runs)
		}
		if err := r.write(*out); err != nil { // what is there, should a later run not end
			return err
		}
	}
	r.print()
	return nil
}

func (s *stage) targets(ctx context.Context) ([]target, error) {
	if err := s.makeCert(); err != nil {
		return nil, err
	}
	ours, err := s.manada()
	if err != nil {
		return nil, err
	}
	floor, err := s.relays(ctx)
	if err != nil {
		return nil, err
	}
	all := append(ours, floor...)
	if *rivals != "" {
		bouncer, err := s.pgbouncer(*rivals, poolSize)
		if err != nil {
			return nil, err
		}
		pgpool, err := s.pgpool(*rivals)
		if err != nil {
			return nil, err
		}
		all = append(append([]target{bouncer}, all...), pgpool)
	}
	for _, t := range all {
		if err := ready(ctx, dsn(t.addr, "sslmode=disable")); err != nil {
			return nil, fmt.Errorf("%s (see %s): %w", t.name, s.dir, err)
		}
	}
	return all, nil
}

// once measures a row of every target that can do it.
func once(ctx context.Context, s *stage, row row, targets []target, r *result) error {
	able := slices.DeleteFunc(slices.Clone(targets), func(t target) bool { return row.skip != nil && row.skip(t) })
	if row.work != nil {
		return inTurns(ctx, s, row, able, *seconds, r)
	}
	for _, t := range able {
		v, err := row.measure(ctx, s, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.note(row, t.name, v, err)
	}
	return nil
}
