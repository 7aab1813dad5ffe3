package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// turn is how long one target is at work before the next one is: a machine that is
// slower for a while is so for all of them.
const turn = 100 * time.Millisecond

// work is what is done with one target, in turns with others.
type work interface {
	// do goes on with it for so long.
	do(ctx context.Context, d time.Duration) error
	// cost is the processor time of the target's process for each unit of what
	// was done, in us.
	cost() (float64, error)
	close()
}

// inTurns measures a row of several targets, each at work for so many seconds. What
// a target fails with is its result alone.
func inTurns(ctx context.Context, s *stage, row row, targets []target, seconds int, r *result) error {
	works := make([]work, len(targets))
	failed := make([]error, len(targets))
	for i, t := range targets {
		if works[i], failed[i] = row.work(ctx, s, t); works[i] != nil {
			defer works[i].close()
		}
	}
	for round := range int(time.Duration(seconds) * time.Second / turn) {
		for k := range works {
			i := (round + k) % len(works)
			if failed[i] == nil {
				failed[i] = works[i].do(ctx, turn)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	for i, t := range targets {
		v := 0.0
		if failed[i] == nil {
			v, failed[i] = works[i].cost()
		}
		r.note(row, t.name, v, failed[i])
	}
	return nil
}

// loader is pgbench before a target. It is stopped while others have their turn.
type loader struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	tx     float64 // between its first report and its last
	cpu    time.Duration
	err    error
	said   string
	began  chan struct{} // closed by the first report
	ended  chan struct{}
	target target
}

var progress = regexp.MustCompile(`progress: ([0-9.]+) s, ([0-9.]+) tps`)

// load starts pgbench -S, or a script, and lets its clients log in.
func (s *stage) load(t target, mode, script string, clients int, sslmode string) (work, error) {
	args := []string{"-n", "-M", mode, "-c", strconv.Itoa(clients), "-T", "3600", "-P", "1"}
	if script == "" {
		args = append(args, "-S")
	} else {
		args = append(args, "-f", script)
	}
	l := &loader{cmd: s.pgbench(t.addr, sslmode, args...), began: make(chan struct{}), ended: make(chan struct{}), target: t}
	reports, err := l.cmd.StderrPipe()
	if err == nil {
		err = l.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	go l.watch(reports)
	select {
	case <-l.began:
		return l, l.cmd.Process.Signal(syscall.SIGSTOP)
	case <-l.ended:
	case <-time.After(time.Minute):
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l, fmt.Errorf("pgbench reported nothing\n%s", l.said)
}

// watch follows pgbench's reports to their end.
func (l *loader) watch(reports io.Reader) {
	defer close(l.ended)
	var before time.Duration
	var last float64
	lines := bufio.NewScanner(reports)
	for first := true; lines.Scan(); {
		m := progress.FindStringSubmatch(lines.Text())
		now, err := l.target.cpu()
		l.mu.Lock()
		if m == nil {
			l.said += lines.Text() + "\n"
			l.mu.Unlock()
			continue
		}
		at, _ := strconv.ParseFloat(m[1], 64)
		tps, _ := strconv.ParseFloat(m[2], 64)
		if first {
			before, first = now, false
			close(l.began)
		} else {
			l.tx, l.cpu = l.tx+tps*(at-last), now-before
		}
		last, l.err = at, errors.Join(l.err, err)
		l.mu.Unlock()
	}
}

func (l *loader) do(ctx context.Context, d time.Duration) error {
	if err := l.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-l.ended:
		l.mu.Lock()
		defer l.mu.Unlock()
		return fmt.Errorf("pgbench has ended\n%s", l.said)
	case <-time.After(d):
	}
	return l.cmd.Process.Signal(syscall.SIGSTOP)
}

func (l *loader) cost() (float64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx == 0 && l.err == nil {
		return 0, errors.New("pgbench reported nothing\n" + l.said)
	}
	return float64(l.cpu.Nanoseconds()) / 1000 / l.tx, l.err
}

func (l *loader) close() {
	_ = l.cmd.Process.Kill()
	<-l.ended
	_ = l.cmd.Wait()
}

// visitor opens connections, asks once and closes, eight at a time.
type visitor struct {
	target  target
	sslmode string
	visits  atomic.Int64
	cpu     time.Duration
}

func (v *visitor) do(ctx context.Context, d time.Duration) error {
	before, err := v.target.cpu()
	if err != nil {
		return err
	}
	end := time.Now().Add(d)
	var all sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		all.Go(func() {
			for time.Now().Before(end) {
				if err := connect(ctx, v.target, v.sslmode); err != nil {
					errs <- err
					return
				}
				v.visits.Add(1)
			}
		})
	}
	all.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	after, err := v.target.cpu()
	v.cpu += after - before
	return err
}

func (v *visitor) cost() (float64, error) {
	return float64(v.cpu.Nanoseconds()) / 1000 / float64(v.visits.Load()), nil
}

func (v *visitor) close() {}
