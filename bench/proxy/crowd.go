package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func connect(ctx context.Context, t target, sslmode string) error {
	c, err := pgconn.Connect(ctx, dsn(t.addr, "sslmode="+sslmode))
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, "select 1").ReadAll()
	_ = c.Close(ctx)
	return err
}

// added is how much longer one client waits for an answer than without anything
// between, in us: the medians of questions asked in turns.
func added(ctx context.Context, s *stage, t target) (float64, error) {
	var took [2][]time.Duration
	var conns [2]*pgconn.PgConn
	for i, addr := range []string{s.addr(), t.addr} {
		c, err := pgconn.Connect(ctx, dsn(addr, "sslmode=disable"))
		if err != nil {
			return 0, err
		}
		defer c.Close(ctx)
		conns[i] = c
	}
	for end := time.Now().Add(time.Duration(*seconds) * time.Second); time.Now().Before(end); {
		for i, c := range conns {
			began := time.Now()
			if _, err := c.Exec(ctx, "select abalance from pgbench_accounts where aid = 4711").ReadAll(); err != nil {
				return 0, err
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	middle := func(d []time.Duration) float64 { slices.Sort(d); return float64(d[len(d)/2].Nanoseconds()) / 1000 }
	return middle(took[1]) - middle(took[0]), nil
}

// crowd are clients that are connected.
type crowd struct{ conns []*pgconn.PgConn }

// grow makes the crowd n clients; each asks once.
func (c *crowd) grow(ctx context.Context, t target, sslmode string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cfg, err := pgconn.ParseConfig(dsn(t.addr, "sslmode="+sslmode))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	var failed error
	turns := make(chan bool, 32)
	for range n - len(c.conns) {
		turns <- true
		all.Go(func() {
			defer func() { <-turns }()
			conn, err := pgconn.ConnectConfig(ctx, cfg)
			if err == nil {
				_, err = conn.Exec(ctx, "select 1").ReadAll()
			}
			mu.Lock()
			defer mu.Unlock()
			if conn != nil {
				c.conns = append(c.conns, conn)
			}
			if err != nil && failed == nil {
				failed = err
				cancel()
			}
		})
	}
	all.Wait()
	if failed != nil {
		return fmt.Errorf("%d clients, then: %w", len(c.conns), failed)
	}
	return nil
}

func (c *crowd) close(ctx context.Context) {
	for _, conn := range c.conns {
		_ = conn.Close(ctx)
	}
	c.conns = nil
}

// growth is the memory that the target's process took for each client between
// 1,000 and 10,000 idle ones, in bytes.
func growth(ctx context.Context, t target, sslmode string) (float64, error) {
	const few, many = 1000, 10000
	var c crowd
	defer func() { c.close(ctx) }()
	if err := c.grow(ctx, t, sslmode, few); err != nil {
		return 0, err
	}
	before, err := resident(t.pid)
	if err != nil {
		return 0, err
	}
	if err := c.grow(ctx, t, sslmode, many); err != nil {
		return 0, err
	}
	after, err := resident(t.pid)
	return float64(after-before) / (many - few), err
}

// fairness is how many answers the slowest of 10,000 clients that ask without a
// pause got, as a part of the median, and how many errors all had.
func fairness(ctx context.Context, t target, lasting time.Duration) (ratio float64, errors int, err error) {
	var c crowd
	defer func() { c.close(ctx) }()
	if err := c.grow(ctx, t, "disable", 10000); err != nil {
		return 0, 0, err
	}
	answers := make([]int64, len(c.conns))
	var failed atomic.Int64
	ctx, cancel := context.WithTimeout(ctx, lasting+time.Minute)
	defer cancel()
	end := time.Now().Add(lasting)
	var all sync.WaitGroup
	for i, conn := range c.conns {
		all.Go(func() {
			for time.Now().Before(end) {
				if _, err := conn.Exec(ctx, "select 1").ReadAll(); err != nil {
					failed.Add(1)
					return
				}
				answers[i]++
			}
		})
	}
	all.Wait()
	slices.Sort(answers)
	return float64(answers[0]) / float64(max(1, answers[len(answers)/2])), int(failed.Load()), nil
}
