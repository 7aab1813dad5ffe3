package cli

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/config"
	"manada/internal/herd"
)

func (a *app) herdOptions() (herd.Options, error) {
	dir := a.where.Dir
	if dir == "" {
		dir = "herd"
	}
	exe, err := os.Executable()
	if err != nil {
		return herd.Options{}, err
	}
	return herd.Options{Dir: dir, Program: exe, Environ: a.environ, Version: Version(), Say: a.say}, nil
}

func (a *app) upCmd() *cobra.Command {
	var o herd.Options
	c := &cobra.Command{
		Use:   "up",
		Short: "Make and start a herd on this machine",
		Long: `Make and start a whole herd on this machine, for trying it: two hosts with a
database (master, slave), a host that votes and keeps the backups (backup), and
a proxy. It is ready when a write through the proxy was committed on two hosts.

Where a herd was stopped, or its machine lost power, up starts that herd again
with its data. Where one runs, it prints the status and changes nothing. An up
that was interrupted is completed by the next one.

Everything stands in ./herd (or --dir); where the user postgres cannot reach
that folder, the data goes to /var/lib/manada/NAME. Root is not needed.` + exits(exitFailed, exitUsage),
		Example: "  manada up\n  manada up --dir /srv/try --name orders",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.where.File != "" {
				return usage("manada run -c FILE  runs one host", "up makes a whole herd and takes no -c")
			}
			if o.Ports < 0 || o.Ports > 65535 {
				return usage("manada up --ports 20000", "there is no port %d", o.Ports)
			}
			return a.up(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "herd", "`NAME` of a new herd")
	c.Flags().IntVar(&o.Ports, "ports", 0, "a new herd's ports are `FIRST` and those after it, not the usual ones")
	c.Flags().DurationVar(&o.Patience, "timeout", 2*time.Minute, "how long to wait until it is ready")
	return c
}

func (a *app) up(ctx context.Context, chosen herd.Options) error {
	o, err := a.herdOptions()
	if err != nil {
		return err
	}
	o.Name, o.Ports, o.Patience = chosen.Name, chosen.Ports, chosen.Patience
	h, outcome, err := herd.Up(ctx, o)
	if err != nil {
		if ctx.Err() != nil && h != nil {
			return fail(exitInterrupted, "manada up  goes on where it was;  manada down --wipe  removes it", "interrupted")
		}
		return err
	}
	a.where.Dir = h.Dir
	if outcome == herd.Ran {
		a.say("the herd %s runs already; nothing was changed", h.File.Cluster)
		a.output = "text"
		return a.status(ctx, false)
	}
	return a.greet(h, outcome)
}

// greet prints the connection string and what to type next.
func (a *app) greet(h *herd.Herd, outcome herd.Outcome) error {
	uri, err := h.URI(herd.URIOptions{})
	if err != nil {
		return err
	}
	what := "is ready"
	if outcome == herd.Started {
		what = "is ready again, with its data"
	}
	dir := ""
	if a.env("MANADA_CONFIG") != "" || !sameDir(h.Dir, "herd") {
		dir = " --dir " + h.Dir
	}
	a.print("The herd %s %s: a write was committed on two hosts.\n\n  %s\n", h.File.Cluster, what, uri)
	a.print("Next:")
	a.print("  psql \"$(manada uri%s)\"", dir)
	a.print("  manada status%s", dir)
	a.print("  manada switchover%s", dir)
	return nil
}

func sameDir(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func (a *app) downCmd() *cobra.Command {
	var wipe, yes bool
	c := &cobra.Command{
		Use:   "down",
		Short: "Stop the herd that up made, or remove it",
		Long: `Stop every process of a herd made by manada up: the proxy, the standby, the
primary, the backup host. Its data stays, and manada up starts it again.

With --wipe its data and its backups are removed too, for good.` + exits(exitFailed, exitUsage),
		Example: "  manada down\n  manada down --wipe --yes",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.down(c.Context(), wipe, yes) },
	}
	c.Flags().BoolVar(&wipe, "wipe", false, "remove its data and backups too")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) down(ctx context.Context, wipe, yes bool) error {
	o, err := a.herdOptions()
	if err != nil {
		return err
	}
	if a.where.Dir == "" && a.where.File == "" {
		if p, err := config.Find(a.where); err == nil && p.Dir != "" {
			o.Dir = p.Dir
		}
	}
	h, err := herd.Open(o.Dir)
	if err != nil {
		return fail(exitUsage, "name its folder with --dir", "%w", err)
	}
	o.Dir = h.Dir
	if wipe {
		what := "This removes the herd " + h.File.Cluster + " in " + h.File.Data + " with all its data and backups."
		if err := a.confirm(yes, h.File.Cluster, what); err != nil {
			return err
		}
	}
	n, err := herd.Down(ctx, h, o)
	if err != nil {
		return err
	}
	if n == 0 {
		a.say("the herd %s did not run", h.File.Cluster)
	}
	if !wipe {
		a.say("the herd %s is stopped; manada up starts it again", h.File.Cluster)
		return nil
	}
	if err := herd.Wipe(h, o); err != nil {
		return err
	}
	a.say("the herd %s is removed", h.File.Cluster)
	return nil
}

func (a *app) uriCmd() *cobra.Command {
	var o herd.URIOptions
	c := &cobra.Command{
		Use:   "uri",
		Short: "Print a connection string that works when pasted",
		Long: `Print a connection string of the herd's proxies: all that this host knows of,
its own first, so that an application goes on with another one when a host is
gone. It follows the primary through failovers. Instead of a password it names a
passfile that only you can read; --show-password prints the password in the
clear.

--format: libpq is a URI, for psql and most drivers; pgx is keywords and values,
for pgx and libpq; jdbc is a URL for pgjdbc; pgpass are lines for ~/.pgpass,
which hold the password.

In a container it is the application's log-in, with its password, at the port
that the container's host publishes; --inside gives the address for other
containers.` + exits(exitFailed, exitUsage),
		Example: "  psql \"$(manada uri)\"\n  manada uri --read-only\n  manada uri --database orders --user app\n  manada uri --format jdbc",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.uri(c.Context(), o) },
	}
	f := c.Flags()
	f.BoolVar(&o.ReadOnly, "read-only", false, "the port that goes to standbys")
	f.StringVarP(&o.Database, "database", "d", "", "`NAME` of the database (default postgres, in a container the application's)")
	f.StringVarP(&o.User, "user", "U", "", "`ROLE` to log in as (default postgres, in a container the application's)")
	f.BoolVar(&o.ShowPassword, "show-password", false, "print the password in the clear")
	f.StringVar((*string)(&o.Format), "format", string(herd.LibpqForm), "`FORM`: libpq, pgx, jdbc or pgpass")
	f.BoolVar(&o.Inside, "inside", false, "in a container: the address in the containers' network")
	a.outputFlag(c)
	return c
}

func (a *app) uri(ctx context.Context, o herd.URIOptions) error {
	if !slices.Contains(herd.Formats, o.Format) {
		return usage("--format libpq, pgx, jdbc  or  pgpass", "unknown form %q", o.Format)
	}
	plain := o
	plain.Format = herd.LibpqForm
	uri, err := a.findURI(ctx, plain)
	if err != nil {
		return err
	}
	if err := a.tryURI(ctx, uri, o); err != nil {
		return err
	}
	if o.Format != plain.Format {
		if uri, err = a.findURI(ctx, o); err != nil {
			return err
		}
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "uri": uri})
	}
	a.print("%s", uri)
	return nil
}

func (a *app) findURI(ctx context.Context, o herd.URIOptions) (string, error) {
	place, err := a.find()
	if err != nil {
		return "", err
	}
	if place.Dir != "" {
		h, err := herd.Open(place.Dir)
		if err != nil {
			return "", err
		}
		return h.URI(o)
	}
	return a.hostURI(ctx, o)
}
