package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/proxy/console"
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
	for _, v := range console.Verbs {
		c.AddCommand(a.proxyVerbCmd(v))
	}
	return c
}

func (a *app) proxyShowCmd() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:   "show [TABLE]",
		Short: "Show a table of a proxy's console; without a name, which there are",
		Long: `Show a table of a proxy's console: clients, servers, pools, databases, users,
stats, pins, ... with PgBouncer's columns; without a name, which there are.` + exits(exitFailed, exitUsage),
		Example: "  manada proxy show\n  manada proxy show pools --node db2\n  manada proxy show clients -o json",
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
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
	a.outputFlag(c)
	return c
}

func (a *app) nodeFlag(c *cobra.Command, node *string) {
	c.Flags().StringVar(node, "node", "", "the proxy of `NODE` (default: this host's, or the herd's only one)")
}

// commandOf is a verb's name as a command: wait-close.
func commandOf(v console.Verb) string {
	return strings.ReplaceAll(strings.ToLower(v.Name), "_", "-")
}

func (a *app) proxyVerbCmd(v console.Verb) *cobra.Command {
	var node string
	var all bool
	name := commandOf(v)
	example := "  manada proxy " + name
	switch v.Argument {
	case console.Optional, console.Needed:
		example += " orders"
	case console.ClientID:
		example += " 42"
	}
	c := &cobra.Command{
		Use:     name + []string{"", " [DATABASE]", " DATABASE", " ID"}[v.Argument],
		Short:   strings.ToUpper(v.Sentence[:1]) + v.Sentence[1:],
		Long:    wrapped(fmt.Sprintf("%s: %s. What clients notice: %s.", v.Name, v.Sentence, notices[v.Danger])) + exits(exitFailed, exitUsage, exitUnknown),
		Example: example,
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case v.Argument == console.Nothing && len(args) > 0, all && len(args) > 0:
				return usage(c.CommandPath()+" --help", "one argument too many: %q", args[0])
			case len(args) == 0 && (v.Argument == console.Needed || v.Argument == console.ClientID):
				return usage(c.CommandPath()+" --help  has examples", "%s is missing", strings.Fields(c.Use)[1])
			case len(args) == 0 && v.Argument == console.Optional && v.Danger == console.Ends && !all:
				return usage("name a database, or all of them with --all", "%s ends the clients of every database", v.Name)
			}
			return a.proxyOrder(c.Context(), node, v, strings.Join(args, ""))
		},
	}
	if v.Argument == console.Optional && v.Danger == console.Ends {
		c.Flags().BoolVar(&all, "all", false, "all databases")
	}
	a.nodeFlag(c, &node)
	a.outputFlag(c)
	return c
}

// notices are what a danger means to clients.
var notices = map[console.Danger]string{console.Harmless: "nothing", console.Holds: "they wait, or are not let in", console.Ends: "they are ended"}

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

// door is the way to a proxy.
type door struct {
	node string
	call func(ctx context.Context, method, path string, in, out any) error
}

// proxyDoor finds the proxy that is meant: one of this machine by its socket, another
// through the agent of its host.
func (a *app) proxyDoor(ctx context.Context, node string) (*door, error) {
	c, err := a.openToRead()
	if err != nil {
		return nil, err
	}
	var here []*config.Config
	var names []string
	for _, cfg := range c.hosts {
		if cfg.Has(config.ProxyRole) && (node == "" || cfg.Node == node) {
			here, names = append(here, cfg), append(names, cfg.Node)
		}
	}
	if len(here) == 1 {
		return localDoor(here[0]), nil
	}
	if len(here) == 0 {
		rows, _, err := read[[]peer.Row](ctx, c, "/v1/view", time.Second)
		if err != nil {
			return nil, err
		}
		var at string
		for _, r := range rows {
			if r.Addrs.Proxy != "" && r.Addrs.Peer != "" && (node == "" || r.Node == node) {
				at, names = r.Addrs.Peer, append(names, r.Node)
			}
		}
		if len(names) == 1 {
			return &door{names[0], func(ctx context.Context, method, path string, in, out any) error {
				return c.client().Call(ctx, at, names[0], method, path, in, out)
			}}, nil
		}
	}
	switch {
	case len(names) > 1:
		return nil, usage("name one with --node: "+strings.Join(names, ", "), "there are several proxies")
	case node != "":
		return nil, usage("on a host that has nothing but a proxy, type it there; manada status lists the hosts", "%s has no proxy that can be reached from here", node)
	}
	return nil, fail(exitFailed, "on a host that has nothing but a proxy, type it there", "no proxy is known here")
}

// localDoor is that of a proxy of this machine.
func localDoor(cfg *config.Config) *door {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return (&net.Dialer{}).DialContext(ctx, "unix", cfg.ProxySocket())
	}}}
	return &door{cfg.Node, func(ctx context.Context, method, path string, in, out any) error {
		body, err := json.Marshal(in)
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, method, "http://proxy"+path, strings.NewReader(string(body)))
		if err != nil {
			return err
		}
		r.Header.Set(console.ByHeader, "manada proxy")
		resp, err := client.Do(r)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fail(exitFailed, "is the host running?  manada status", "the proxy of %s does not answer: %w", cfg.Node, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			e := &peer.Error{}
			raw, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
			if json.Unmarshal(raw, e) != nil || e.Message == "" {
				e.Message = "the proxy answered " + resp.Status
			}
			return e
		}
		return json.NewDecoder(resp.Body).Decode(out)
	}}
}

func (a *app) showIndex(ctx context.Context, d *door) error {
	var all console.Index
	if err := d.call(ctx, http.MethodGet, "/v1/proxy", nil, &all); err != nil {
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
	if err := d.call(ctx, http.MethodGet, "/v1/proxy/"+name, nil, &t); err != nil {
		return refusedByProxy(err)
	}
	if a.output == "json" {
		rows := make([]map[string]any, len(t.Rows))
		for i, r := range t.Rows {
			rows[i] = map[string]any{}
			for j, c := range t.Columns {
				rows[i][c] = r[j]
			}
		}
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "proxy": d.node, "table": name, "rows": rows})
	}
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

func (a *app) proxyOrder(ctx context.Context, node string, v console.Verb, argument string) error {
	d, err := a.proxyDoor(ctx, node)
	if err != nil {
		return err
	}
	var done console.Done
	if err := d.call(ctx, http.MethodPost, "/v1/proxy/"+strings.ToLower(v.Name), console.Request{Argument: argument}, &done); err != nil {
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
	case ok && e.Code == "42601":
		return usage("manada proxy show  lists the tables", "%s", e.Message)
	case ok && e.Hint == "":
		return fail(exitFailed, "manada proxy show databases  and  manada proxy show clients  say what there is", "%s", e.Message)
	}
	return err
}
