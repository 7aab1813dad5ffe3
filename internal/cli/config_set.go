package cli

import (
	"context"
	"fmt"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/process"
	"manada/internal/verb"
)

func (a *app) configSetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME VALUE",
		Short: "Set a parameter of PostgreSQL for the whole cluster",
		Long: `Set a parameter of PostgreSQL on every node of the cluster. Every agent applies
it within seconds; what takes effect at a start of PostgreSQL only is named by
manada status. A node whose own file gives the parameter keeps its own value.
PostgreSQL is asked whether it takes the value before anything is changed.` + exits(exitFailed, exitUsage, exitNoPrimary, exitUnknown),
		Example: "  manada config set work_mem 16MB\n  manada config set log_min_duration_statement 500ms",
		Args:    exactly("NAME", "VALUE"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeConfig(c.Context(), process.ConfigChange{Name: args[0], Value: args[1]})
		},
	}
}

func (a *app) configUnsetCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "unset NAME",
		Short:   "Take back what config set has set",
		Long:    `Take a parameter of the cluster back: nodes use their own value or the default.` + exits(exitFailed, exitUsage, exitNoPrimary, exitUnknown),
		Example: "  manada config unset work_mem",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeConfig(c.Context(), process.ConfigChange{Name: args[0], Unset: true})
		},
	}
}

func (a *app) changeConfig(ctx context.Context, q process.ConfigChange) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	if u, err := user.Current(); err == nil {
		q.By = u.Username
	}
	var r process.ConfigChanged
	if err := c.writeDatabase(ctx, verb.SetConfig, q, &r); err != nil {
		return err
	}
	a.print("%s", r.Text)
	if r.Restart {
		a.say("it takes effect when PostgreSQL is started again; manada status names the nodes that wait for it")
	}
	return nil
}

// writeDatabase asks a host with a database that answers, the primary before
// others.
func (c *caller) writeDatabase(ctx context.Context, v verb.Verb, in, out any) error {
	st, err := c.status(ctx)
	if err != nil {
		return err
	}
	for _, role := range []cluster.Role{cluster.RolePrimary, cluster.RoleStandby} {
		for _, n := range st.Nodes {
			if n.Role != role || n.Postgres == "" { // not heard lately
				continue
			}
			for _, t := range c.target {
				if t.node == n.Name {
					return c.client().Call(ctx, t.addr, t.node, v, in, out)
				}
			}
		}
	}
	return fail(exitNoPrimary, "manada status", "no host with a database answers")
}

// parametersHere are what a host's PostgreSQL is given; nil when its agent does
// not answer.
func (a *app) parametersHere(ctx context.Context, cfg *config.Config) []process.Parameter {
	if !cfg.Has(config.Database) || !cfg.HasIdentity() {
		return nil
	}
	c := &caller{hosts: []*config.Config{cfg}}
	if err := c.prepare(); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var ps []process.Parameter
	if err := c.client().Call(ctx, cfg.AdvertiseOn(cfg.Ports.Peer), cfg.Node, verb.Config, nil, &ps); err != nil {
		return nil
	}
	return ps
}

// parameterOrigin in words.
var parameterOrigin = map[string]string{
	"cluster": "cluster (manada config set)", "node": "this host", "default": "default", "manada": "owned by Manada",
}

func (a *app) printParameters(cfg *config.Config, ps []process.Parameter) error {
	if !cfg.Has(config.Database) {
		return nil
	}
	if ps == nil {
		a.say("note: the agent of %s does not answer: the parameters of the cluster are not shown", cfg.Node)
		return nil
	}
	a.print("\n# PostgreSQL on %s", cfg.Node)
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	for _, p := range ps {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, orDash(p.Value), parameterOrigin[p.From])
	}
	return w.Flush()
}
