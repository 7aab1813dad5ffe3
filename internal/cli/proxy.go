package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/peer"
	"manada/internal/proxy/console"
	"manada/internal/verb"
)

func (a *app) proxyCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "proxy",
		Short: "Show what a proxy does, and give it orders",
		Long: `Show the tables of a proxy's console, and give it the orders that the console
takes: the same as  psql ... dbname=manada . An order is for one proxy: this
host's, or the one that --node names.` + exits(exitFailed, exitUsage),
		Example: "  manada proxy show pools\n  manada proxy pause orders --node db2",
		Args:    noArgs,
	}
	run := a.proxyProcess()
	c.RunE = func(c *cobra.Command, args []string) error {
		if a.accepted == "" {
			return c.Help()
		}
		return run.RunE(c, args)
	}
	a.acceptedFlag(c)
	_ = c.Flags().MarkHidden("accepted") // it is there
	c.AddCommand(a.proxyShowCmd())
	for _, v := range verb.Orders {
		c.AddCommand(a.proxyVerbCmd(v))
	}
	return c
}

func (a *app) proxyShowCmd() *cobra.Command {
	var node string
	var herd bool
	c := &cobra.Command{
		Use:   "show [TABLE]",
		Short: "Show a table of a proxy's console; without a name, which there are",
		Long: `Show a table of a proxy's console: clients, servers, pools, databases, users,
stats, pins, ... with PgBouncer's columns; without a name, which there are.` + exits(exitFailed, exitUsage),
		Example: "  manada proxy show\n  manada proxy show pools --node db2\n  manada proxy show pools --herd\n  manada proxy show clients -o json",
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case herd && (node != "" || len(args) == 0):
				return usage(c.CommandPath()+" --help  has examples", "--herd wants a table, and no --node")
			case herd:
				return a.showHerd(c.Context(), strings.ToLower(args[0]))
			}
			d, err := a.proxyDoor(c.Context(), node)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.showIndex(c.Context(), d)
			}
			return a.showTable(c.Context(), d, strings.ToLower(args[0]))
		},
	}
	a.nodeFlag(c, &node)
	c.Flags().BoolVar(&herd, "herd", false, "of all proxies of the herd")
	a.outputFlag(c)
	return c
}

func (a *app) nodeFlag(c *cobra.Command, node *string) {
	c.Flags().StringVar(node, "node", "", "the proxy of `NODE` (default: this host's, or the herd's only one)")
}

func (a *app) proxyVerbCmd(v verb.Verb) *cobra.Command {
	var node string
	var all bool
	_, name, _ := strings.Cut(v.Name, " ")
	use, example, most, needed := name, "  manada proxy "+name, 0, false
	if len(v.Arguments) > 0 {
		takes := v.Arguments[0]
		most, needed = 1, takes.Needed
		use += " " + map[bool]string{true: takes.As, false: "[" + takes.As + "]"}[needed]
		example += " " + map[string]string{"DATABASE": "orders", "ID": "42"}[takes.As]
	}
	every := most == 1 && !needed && v.Danger == verb.Ends // whoever means all of them says so
	c := &cobra.Command{
		Use:     use,
		Short:   strings.ToUpper(v.Sentence[:1]) + v.Sentence[1:],
		Long:    wrapped(fmt.Sprintf("%s: %s. What clients notice: %s.", v.Word(), v.Sentence, notices[v.Danger])) + exits(exitFailed, exitUsage, exitUnknown),
		Example: example,
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) > most, all && len(args) > 0:
				return usage(c.CommandPath()+" --help", "one argument too many: %q", args[0])
			case len(args) == 0 && needed:
				return usage(c.CommandPath()+" --help  has examples", "%s is missing", strings.Fields(c.Use)[1])
			case len(args) == 0 && every && !all:
				return usage("name a database, or all of them with --all", "%s ends the clients of every database", v.Word())
			}
			return a.proxyOrder(c.Context(), node, v, strings.Join(args, ""))
		},
	}
	if every {
		c.Flags().BoolVar(&all, "all", false, "all databases")
	}
	a.nodeFlag(c, &node)
	a.outputFlag(c)
	return c
}

// notices are what a danger means to clients.
var notices = map[verb.Danger]string{verb.Harmless: "nothing", verb.Holds: "they wait, or are not let in", verb.Ends: "they are ended"}

// wrapped breaks a text into lines of at most 78 columns.
func wrapped(s string) string {
	var b strings.Builder
	n := 0
	for _, w := range strings.Fields(s) {
		if n > 0 && n+1+len(w) > 78 {
			b.WriteByte('\n')
			n = 0
		} else if n > 0 {
			b.WriteByte(' ')
			n++
		}
		b.WriteString(w)
		n += len(w)
	}
	return b.String()
}

func (a *app) showIndex(ctx context.Context, d *door) error {
	var all console.Index
	if err := d.call(ctx, verb.ProxyIndex, nil, &all); err != nil {
		return refusedByProxy(err)
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "proxy": d.node, "tables": all.Tables, "verbs": all.Verbs})
	}
	for _, t := range all.Tables {
		a.print("%s", t)
	}
	return nil
}

func (a *app) showTable(ctx context.Context, d *door, name string) error {
	var t console.Table
	if err := d.call(ctx, verb.ProxyShow.At(url.PathEscape(name)), nil, &t); err != nil {
		return refusedByProxy(err)
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "proxy": d.node, "table": name, "rows": objects(t)})
	}
	return a.printTable(t)
}

// objects are a table's rows, by the names of the columns.
func objects(t console.Table) []map[string]any {
	rows := make([]map[string]any, len(t.Rows))
	for i, r := range t.Rows {
		rows[i] = map[string]any{}
		for j, c := range t.Columns {
			rows[i][c] = r[j]
		}
	}
	return rows
}

func (a *app) printTable(t console.Table) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(t.Columns, "\t"))
	for _, r := range t.Rows {
		for i, v := range r {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			if n, ok := v.(float64); ok {
				fmt.Fprint(w, int64(n))
			} else if v != nil {
				fmt.Fprint(w, v)
			}
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// showHerd shows a table of all proxies as one, with the proxy in front. Which of them
// did not answer is an error behind what the others have said.
func (a *app) showHerd(ctx context.Context, name string) error {
	doors, away, err := a.allDoors(ctx)
	if err != nil {
		return err
	}
	tables, errs := make([]console.Table, len(doors)), make([]error, len(doors))
	var asked sync.WaitGroup
	for i, d := range doors {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			errs[i] = d.call(ctx, verb.ProxyShow.At(url.PathEscape(name)), nil, &tables[i])
		})
	}
	asked.Wait()
	all := console.Table{}
	for i, d := range doors {
		if errs[i] != nil {
			if e := refusedByProxy(errs[i]); exitCode(e) == exitUsage {
				return e
			}
			away = append(away, fmt.Sprintf("%s (%v)", d.node, errs[i]))
			continue
		}
		all.Columns = append([]string{"proxy"}, tables[i].Columns...)
		for _, r := range tables[i].Rows {
			all.Rows = append(all.Rows, append([]any{d.node}, r...))
		}
	}
	if a.output == "json" {
		err = json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "table": name, "rows": objects(all), "away": append([]string{}, away...)})
	} else if all.Columns != nil {
		err = a.printTable(all)
	}
	if err == nil && len(away) > 0 {
		err = fail(exitFailed, "manada status  says which hosts run", "not shown is the proxy of %s", strings.Join(away, ", of "))
	}
	return err
}

func (a *app) proxyOrder(ctx context.Context, node string, v verb.Verb, argument string) error {
	d, err := a.proxyDoor(ctx, node)
	if err != nil {
		return err
	}
	var done console.Done
	if err := d.call(ctx, v, console.Request{Argument: argument}, &done); err != nil {
		return refusedByProxy(err)
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "proxy": d.node, "verb": done.Verb, "argument": argument, "note": done.Note})
	}
	a.print("%s done at the proxy of %s", strings.TrimSpace(done.Verb+" "+argument), d.node)
	if done.Note != "" {
		a.say("%s", done.Note)
	}
	return nil
}

// refusedByProxy makes what there is not a mistake of usage, and says where to look.
func refusedByProxy(err error) error {
	e, ok := errors.AsType[*peer.Error](err)
	switch {
	case !ok:
		return err
	case slices.Contains([]string{"42601", peer.CodeNotFound}, e.Code):
		return usage("manada proxy show  lists the tables", "%s", e.Message)
	case e.Code == "3D000":
		return usage("manada proxy show databases  lists those with clients or connections", "%s", e.Message)
	case slices.Contains([]string{"42704", "22023"}, e.Code):
		return usage("manada proxy show clients  lists them, with their ids", "%s", e.Message)
	case e.Hint == "":
		return fail(exitFailed, "manada proxy show databases  and  manada proxy show clients  say what there is", "%s", e.Message)
	}
	return err
}
