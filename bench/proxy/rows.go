package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// row is one thing that is measured of each target that can do it.
type row struct {
	name    string
	unit    string
	bars    []bar
	crowded bool                                                   // needs minutes: measured once, whatever -n says
	work    func(context.Context, *stage, target) (work, error)    // of all targets in turns, or
	measure func(context.Context, *stage, target) (float64, error) // of one after the other
	skip    func(target) bool
}

// bar is a promise: who is at most so many times the rival, or at most value, or
// at least so much.
type bar struct {
	who, rival         string
	most, value, least float64
}

func ratio(who string, most float64) bar { return bar{who: who, rival: "pgbouncer", most: most} }

func (b bar) met(who, rival float64) bool {
	return b.most > 0 && rival > 0 && who <= b.most*rival || b.value > 0 && who <= b.value || b.least > 0 && who >= b.least
}

func (b bar) String() string {
	s := b.who
	if b.most > 0 {
		s += fmt.Sprintf(" <= %.2fx %s", b.most, b.rival)
	}
	if b.value > 0 {
		s += fmt.Sprintf(" <= %.0f", b.value)
	}
	if b.least > 0 {
		s += fmt.Sprintf(" >= %.2f", b.least)
	}
	return s
}

func pgbench(mode string, clients int, sslmode string) func(context.Context, *stage, target) (work, error) {
	return func(_ context.Context, s *stage, t target) (work, error) {
		return s.load(t, mode, "", clients, sslmode)
	}
}

// long is a simple text of 250 bytes whose literals change, as frameworks send them.
func long(_ context.Context, s *stage, t target) (work, error) {
	const text = "\\set a random(1, 1000000)\nselect a.aid, a.bid, a.abalance, a.filler, b.bbalance from pgbench_accounts as a left join pgbench_branches as b on b.bid = a.bid " +
		"where a.aid = :a and a.abalance between -1000000000 and 1000000000 and a.filler is not null order by a.aid limit 10;\n"
	script := filepath.Join(s.dir, "long.sql")
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return s.load(t, "simple", script, 16, "disable")
}

func noTLS(t target) bool   { return !t.tls }
func noCrowd(t target) bool { return noFloor(t) || t.name == "session" } // which has a connection of PostgreSQL for each
func noFloor(t target) bool { return t.children || strings.HasPrefix(t.name, "relay") }

// rows are what issue and documents promise of. The sizes of the bars are theirs.
func rows() []row {
	var out []row
	for _, mode := range []string{"simple", "extended", "prepared"} {
		for _, n := range []int{1, 16, 64} {
			r := row{name: fmt.Sprintf("%s, %d clients", mode, n), unit: "us of CPU per transaction", work: pgbench(mode, n, "disable")}
			switch {
			case mode == "simple" && n == 16:
				r.bars = []bar{ratio("manada-tcp", 1.1), ratio("manada", 0.95), {who: "manada", rival: "pgpool", most: 0.4}, {who: "auto", rival: "manada", most: 1.05}}
			case mode == "simple" && n == 64:
				r.bars = []bar{ratio("manada-tcp", 0.95), ratio("manada", 0.8)}
			case mode == "prepared" && n == 16:
				r.bars = []bar{ratio("manada-tcp", 1.0)}
			}
			out = append(out, r)
		}
	}
	return append(out,
		row{name: "simple, 250 bytes, 16 clients", unit: "us of CPU per transaction", work: long,
			bars: []bar{{who: "auto", rival: "manada", most: 1.2}}},
		row{name: "prepared, 16 clients, TLS", unit: "us of CPU per transaction", work: pgbench("prepared", 16, "require"), skip: noTLS,
			bars: []bar{ratio("manada-tcp", 1.1)}},
		row{name: "added latency, 1 client", unit: "us", measure: added, bars: []bar{ratio("manada", 1.0)}},
		row{name: "connect, select, disconnect", unit: "us of CPU each", work: connecting("disable"), skip: noFloor, bars: []bar{ratio("manada", 1.5)}},
		row{name: "connect, select, disconnect, TLS", unit: "us of CPU each", work: connecting("require"), skip: noTLS, bars: []bar{ratio("manada", 2)}},
		row{name: "idle client, 1,000 to 10,000", unit: "bytes each", crowded: true, measure: growing("disable"), skip: noCrowd, bars: []bar{{"manada", "pgbouncer", 1.0, 2048, 0}}},
		row{name: "idle client, 1,000 to 10,000, TLS", unit: "bytes each", crowded: true, measure: growing("require"), skip: func(t target) bool { return noTLS(t) || noCrowd(t) }, bars: []bar{{who: "manada", value: 16384}}},
		row{name: "10,000 clients: slowest to median", unit: "ratio", crowded: true, measure: fair, skip: noCrowd, bars: []bar{{who: "manada", least: 1.0 / 3}}},
	)
}

func connecting(sslmode string) func(context.Context, *stage, target) (work, error) {
	return func(_ context.Context, _ *stage, t target) (work, error) {
		return &visitor{target: t, sslmode: sslmode}, nil
	}
}

func growing(sslmode string) func(context.Context, *stage, target) (float64, error) {
	return func(ctx context.Context, _ *stage, t target) (float64, error) { return growth(ctx, t, sslmode) }
}

func fair(ctx context.Context, _ *stage, t target) (float64, error) {
	ratio, errors, err := fairness(ctx, t, 60*time.Second)
	if err == nil && errors > 0 {
		err = fmt.Errorf("%d clients had an error", errors)
	}
	return ratio, err
}
