// Command demo is the main job of a herd on real data: start, load, write, kill
// the primary under load, come back, fail back, back up, restore, compare. It
// leaves the herd running. Exit code 0 only if all of it held.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"manada/test/herdtest"
)

func main() {
	bin := flag.String("manada", "bin/manada", "the program")
	dir := flag.String("dir", "herd", "folder of the herd")
	scale := flag.Int("scale", 10, "scale of pgbench's tables")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	d := &demo{scale: *scale, began: time.Now()}
	err := d.run(ctx, *bin, *dir)
	d.summary(err)
	if err != nil {
		os.Exit(1)
	}
}

// demo is one run with what it found.
type demo struct {
	h     *herdtest.Herd
	scale int
	began time.Time
	rows  [][2]string
}

// step announces a step and tells how long it took.
func (d *demo) step(what string, f func() error) error {
	fmt.Printf("== %s\n", what)
	began := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Printf("   %.1f s\n", time.Since(began).Seconds())
	return nil
}

func (d *demo) result(what, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.rows = append(d.rows, [2]string{what, text})
	fmt.Printf("   %s: %s\n", what, text)
}

func (d *demo) run(ctx context.Context, bin, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := d.step("start a herd: two data nodes, a witness that keeps the backups, a proxy", func() error {
		began := time.Now()
		d.h, err = herdtest.Start(ctx, bin, dir)
		if err != nil {
			return err
		}
		_, err = d.h.WaitSync(ctx)
		d.result("up, synchronously replicated", "%.1f s", time.Since(began).Seconds())
		return err
	}); err != nil {
		return err
	}
	for _, s := range []struct {
		what string
		f    func(context.Context) error
	}{
		{fmt.Sprintf("load pgbench tables, scale %d, through the proxy", d.scale), d.load},
		{"kill the primary with SIGKILL while four connections commit", d.killPrimary},
		{"fail back to the original primary", d.failback},
		{"back up: full, differential, incremental", d.backups},
		{"restore the last backup and compare it with the source", d.restore},
	} {
		if err := d.step(s.what, func() error { return s.f(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// summary ends with what the next person needs: the result and what to type.
func (d *demo) summary(err error) {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range d.rows {
		fmt.Fprintf(w, "  %s\t%s\n", r[0], r[1])
	}
	fmt.Fprintf(w, "  everything\t%.0f s\n", time.Since(d.began).Seconds())
	w.Flush()
	fmt.Println()
	if err != nil {
		fmt.Printf("FAILED: %v\n", err)
		if d.h != nil {
			fmt.Printf("The herd is left as it is: bin/manada status --dir %s, logs in %s/*/log\n", d.h.Dir, d.h.Data)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // detached: the run may have used up its time
	defer cancel()
	uri, _ := d.h.Manada(ctx, "uri")
	fmt.Printf("PASSED. The herd is running:\n\n  %s\n\nNext:\n", strings.TrimSpace(uri))
	fmt.Println("  psql \"$(bin/manada uri)\"\n  bin/manada status\n  bin/manada switchover")
}

// pgProgram finds one of PostgreSQL's client programs.
func pgProgram(name string) string {
	for _, d := range []string{"/usr/lib/postgresql/15/bin"} {
		if p := filepath.Join(d, name); exec.Command(p, "--version").Run() == nil {
			return p
		}
	}
	return name
}
