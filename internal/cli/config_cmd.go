package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"manada/internal/config"
	"manada/internal/herd"
)

func (a *app) configCmd() *cobra.Command {
	c := &cobra.Command{
		Use:     "config",
		Short:   "Check, show or change the configuration",
		Long:    "Check or show the configuration of a host; set parameters of PostgreSQL for the\nwhole cluster." + exits(exitFailed, exitUsage),
		Example: "  manada config check\n  manada config show -c /etc/manada/manada.yaml\n  manada config set work_mem 16MB",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.configCheckCmd(), a.configShowCmd(), a.configSetCmd(), a.configUnsetCmd())
	return c
}

func (a *app) configCheckCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and print every mistake",
		Long: `Check the configuration of this host, or of every host of a herd made by
manada up: keys, types, values that contradict each other, folders, programs and
addresses; ports that somebody else has; the name, if the host has one already;
and what PostgreSQL itself thinks of its parameters, libraries and lines of
pg_hba.conf. Every mistake is printed, with file and line.` + exits(exitFailed, exitUsage),
		Example: "  manada config check\n  manada config check -c ./manada.yaml -o json",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.configCheck(c.Context()) },
	}
	a.outputFlag(c)
	return c
}

// checkHost looks at a host's machine, ports and identity, and lets PostgreSQL
// judge what is its own; all mistakes at once.
func checkHost(ctx context.Context, c *config.Config) error {
	account, err := c.RunAs()
	if err != nil {
		return c.Check() // which says so
	}
	var all config.Problems
	for _, err := range []error{c.Check(), herd.Judge(ctx, c, account), herd.CheckPorts(c)} {
		var ps config.Problems
		if err != nil && !errors.As(err, &ps) {
			return err
		}
		all = append(all, ps...)
	}
	return all.OrNil()
}

func (a *app) configCheck(ctx context.Context) error {
	place, err := a.find()
	if err != nil {
		return err
	}
	all := []config.Problem{}
	for _, f := range place.Files {
		c, err := config.Load(f, a.environ)
		if err == nil {
			err = checkHost(ctx, c)
		}
		var ps config.Problems
		if err != nil && !errors.As(err, &ps) {
			return fail(exitUsage, "", "%w", err)
		}
		all = append(all, ps...)
		if c == nil {
			continue
		}
		for _, w := range c.Warnings {
			a.say("warning: %s", w)
		}
	}
	if a.output == "json" {
		if err := json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "files": place.Files, "problems": all}); err != nil {
			return err
		}
	} else {
		a.printProblems(place.Files, all)
	}
	if len(all) > 0 {
		return quiet(exitUsage)
	}
	return nil
}

func (a *app) printProblems(files []string, all config.Problems) {
	if len(all) == 0 {
		for _, f := range files {
			a.print("%s: ok", f)
		}
		return
	}
	fmt.Fprintln(a.err, all.Error())
	a.say("%d %s", len(all), plural(len(all), "mistake", "mistakes"))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func (a *app) configShowCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "show",
		Short: "Print every value and where it came from",
		Long: `Print every value that this host would run with and where it came from: a
line of the file, an environment variable, or the default. Where its agent
answers, the parameters follow with which its PostgreSQL is configured: of the
cluster, of this host, defaults, and those that are Manada's own.` + exits(exitFailed, exitUsage),
		Example: "  manada config show\n  MANADA_TIMING_BEAT=200ms manada config show -o json",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.configShow(c.Context()) },
	}
	a.outputFlag(c)
	return c
}

func (a *app) configShow(ctx context.Context) error {
	place, err := a.find()
	if err != nil {
		return err
	}
	for i, f := range place.Files {
		c, err := config.Load(f, a.environ)
		if err != nil {
			return err
		}
		params := a.parametersHere(ctx, c)
		if a.output == "json" {
			if err := json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "file": f, "settings": c.Settings(), "parameters": params}); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			a.print("")
		}
		a.print("# %s", f)
		w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
		for _, s := range c.Settings() {
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, orDash(s.Value), s.Origin)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if err := a.printParameters(c, params); err != nil {
			return err
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
