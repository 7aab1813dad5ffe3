package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/peer"
	"manada/internal/store"
	"manada/internal/verb"
)

func (a *app) explainCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [NODE]",
		Short: "Say what each node has decided, and why",
		Long: `Say what each node (or NODE) does now and the reason of its last decision, in
the words of its log, and what has happened to the herd lately.` + exits(exitFailed, exitUsage),
		Example: "  manada explain\n  manada explain slave",
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			node := ""
			if len(args) == 1 {
				node = args[0]
			}
			return a.explain(c.Context(), node)
		},
	}
	a.outputFlag(c)
	return c
}

func (a *app) explain(ctx context.Context, node string) error {
	c, err := a.openToRead()
	if err != nil {
		return err
	}
	all, _, err := read[[]peer.Row](ctx, c, verb.View, 2*time.Second)
	if err != nil {
		return err
	}
	var rows []peer.Row
	for _, r := range all {
		if r.From == peer.FromAgent && (node == "" || r.Node == node) {
			r.Term = nil // the same on every row; status has it
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 && node != "" {
		return fail(exitUsage, "manada status  lists the nodes", "nothing was heard of a node %s", node)
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(rows)
	}
	for _, r := range rows {
		a.explainNode(r)
	}
	if err := a.lately(ctx, c, 10); err != nil {
		_, why, _ := explain(err)
		a.print("lately    not known: %s", why)
	}
	return nil
}

func (a *app) explainNode(r peer.Row) {
	a.print("%s  (heard %.1f s ago)", r.Node, float64(r.AgeMS)/1000)
	a.print("  postgres  %s%s", r.Postgres, suffix(r.Leads != 0, ", leads epoch %d", r.Leads))
	a.print("  decided   %s", r.Reason)
	for _, x := range [][2]string{{"working", r.Op}, {"suspects", r.Suspects}, {"cannot", r.CannotCommit}, {"unsure", unsure(r)}, {"must", r.Rejoin}} {
		if x[1] != "" {
			a.print("  %-9s %s", x[0], x[1])
		}
	}
	if !r.StoreOK {
		a.print("  store     does not answer this node")
	}
}

// unsure is why a node that leads does not answer /primary with 200.
func unsure(r peer.Row) string {
	if r.Leads == 0 {
		return ""
	}
	return r.Unconfirmed
}

func suffix(is bool, format string, args ...any) string {
	if !is {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

func (a *app) historyCmd() *cobra.Command {
	n := 30
	c := &cobra.Command{
		Use:   "history",
		Short: "List what has happened to the herd",
		Long: `List what has happened to the herd, the newest last: takeovers, promotions,
degradations, rejoins, backups, settings put back.` + exits(exitFailed, exitUsage),
		Example: "  manada history\n  manada history -n 200 -o json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if n < 1 {
				return usage("manada history -n 30", "-n %d shows nothing: want 1 to 200", n)
			}
			h, err := a.openToRead()
			if err != nil {
				return err
			}
			return a.lately(c.Context(), h, n)
		},
	}
	c.Flags().IntVarP(&n, "number", "n", n, "how many `EVENTS`, at most 200")
	a.outputFlag(c)
	return c
}

// lately prints the newest events.
func (a *app) lately(ctx context.Context, c *caller, n int) error {
	events, _, err := read[[]store.Event](ctx, c, verb.History, 2*time.Second)
	if err != nil {
		return err
	}
	events = events[max(0, len(events)-n):]
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(events)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tNODE\tEPOCH\tEVENT\tWHAT")
	for _, e := range events {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.At.Format("2006-01-02 15:04:05.000Z"), e.Node, suffix(e.Epoch != 0, "%d", e.Epoch), e.Kind, e.Text)
	}
	return w.Flush()
}

func (a *app) pauseCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "pause",
		Short: "Forbid takeovers by themselves, for maintenance",
		Long: `Forbid the herd to change roles by itself until resume. Replication, degrading
and rejoining go on; switchover and failover still do what they are told.` + exits(exitFailed, exitUsage),
		Example: "  manada pause --reason 'switch replacement until 04:00'\n  manada resume",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tell(c.Context(), verb.Pause, store.Pause{Reason: reason})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that is kept with the pause")
	return c
}

func (a *app) resumeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Allow takeovers again",
		Long:    "Allow the herd to change roles by itself again." + exits(exitFailed, exitUsage),
		Example: "  manada resume",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.tell(c.Context(), verb.Resume, struct{}{}) },
	}
}

// tell posts a verb and prints what came of it.
func (a *app) tell(ctx context.Context, v verb.Verb, in any) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	var out struct {
		Result string `json:"result"`
	}
	if err := c.write(ctx, v, in, &out); err != nil {
		return err
	}
	a.print("%s", out.Result)
	return nil
}

// knownNode refuses a name that no node of the herd bears, before anything is asked.
func (a *app) knownNode(ctx context.Context, node string) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	s, err := c.status(ctx)
	if err != nil {
		return err
	}
	if _, known := s.Node(node); !known {
		return fail(exitUsage, "manada status  lists the nodes", "there is no node %s in this herd", node)
	}
	return nil
}

func (a *app) reinitCmd() *cobra.Command {
	var yes bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "reinit NODE",
		Short: "Make a standby anew from the primary",
		Long: `Throw the data directory of a standby away and clone the primary. For a node
whose data is damaged or quarantined; everything else comes back by itself.` + exits(exitFailed, exitUsage, exitUnknown),
		Example: "  manada reinit slave\n  manada reinit slave --yes",
		Args:    exactly("the name of the node"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.knownNode(c.Context(), args[0]); err != nil {
				return err
			}
			if err := a.confirm(yes, args[0], "The data directory of "+args[0]+" will be removed and cloned anew."); err != nil {
				return err
			}
			return a.changeRole(c.Context(), verb.Reinit, roleRequest{To: args[0]}, timeout)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().DurationVar(&timeout, "timeout", time.Hour, "how long to wait for it")
	return c
}
