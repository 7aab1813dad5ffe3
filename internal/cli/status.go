package cli

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"manada/internal/cluster"
	"manada/internal/health"
)

func (a *app) statusCmd() *cobra.Command {
	var check, watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say whether the herd is well, and why not",
		Long: `Say in one screen whether the herd is well and why not: its hosts, their roles,
timelines and lag, what commits wait for, the store, the last backup and how far
back one can restore. Any host answers for all of them, this one if it can, and
the last line says which did; a host that is gone is named, not waited for, and
what could not be asked is unknown, with what was known last.

"failover safe" counts who has the commits, who may lead, and the votes that
are left when the primary's host is lost. Where only the death of its PostgreSQL
would be survived it says so.

With --check the exit code says how the herd is.` + exits(exitFailed, exitUsage, exitDegraded, exitNoPrimary),
		Example: "  manada status\n  manada status --check && echo well\n  manada status -o json | jq .primary\n  manada status --watch",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if watch {
				return a.watchStatus(c.Context())
			}
			return a.status(c.Context(), check)
		},
	}
	c.Flags().BoolVar(&check, "check", false, "exit with 3 when degraded, 4 when no primary lets writes through")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "print it again every second, until interrupted")
	a.outputFlag(c)
	return c
}

func (a *app) status(ctx context.Context, check bool) error {
	c, err := a.openToRead()
	if err != nil {
		return err
	}
	s, err := c.status(ctx)
	if err != nil {
		return err
	}
	if err := a.showStatus(s); err != nil {
		return err
	}
	if code := health.ExitCode(s); check && code != 0 {
		return quiet(code)
	}
	return nil
}

func (a *app) showStatus(s cluster.Status) error {
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(s)
	}
	return health.Text(a.out, s, a.textOptions())
}

// textOptions describe the terminal, if it is one.
func (a *app) textOptions() health.Options {
	var o health.Options
	f, ok := a.out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return o
	}
	if w, _, err := term.GetSize(int(f.Fd())); err == nil {
		o.Width = w
	}
	o.Unicode = strings.Contains(strings.ToLower(a.env("LC_ALL")+a.env("LC_CTYPE")+a.env("LANG")), "utf")
	o.Color = a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"
	return o
}

func (a *app) watchStatus(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if a.output != "json" && a.isTerminal() {
			a.print("\x1b[H\x1b[2J\x1b[A")
		}
		if err := a.status(ctx, false); err != nil && ctx.Err() == nil {
			report(a.err, err, false)
		}
		select {
		case <-ctx.Done():
			return quiet(exitInterrupted)
		case <-tick.C:
		}
	}
}
