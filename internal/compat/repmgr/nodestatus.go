package repmgr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"manada/internal/cli"
	"manada/internal/config"
	"manada/internal/postgres"
	"manada/internal/verb"
)

// nodeStatus prints `node status` of a database on this machine.
func (f *face) nodeStatus(ctx context.Context, h *cli.Herd, ns []*node) int {
	host, err := f.host(h.Hosts())
	if err != nil {
		return f.fail(errBadConfig, err)
	}
	i := slices.IndexFunc(ns, func(n *node) bool { return n.name == host.Node })
	if i < 0 {
		return f.fail(errBadConfig, fmt.Errorf("no record found for node %s", host.Node))
	}
	var facts postgres.Facts
	if err := h.Ask(ctx, host, verb.Postgres, &facts); err != nil {
		return f.fail(errDBConn, err)
	}
	return status(f.out, f.err, ns[i], ns, facts, f.line.options)
}

// host is the database host of this machine that is meant.
func (f *face) host(hosts []*config.Config) (*config.Config, error) {
	var names []string
	var found *config.Config
	for _, c := range hosts {
		if !c.Has(config.Database) || f.node != "" && c.Node != f.node {
			continue
		}
		names, found = append(names, c.Node), c
	}
	switch {
	case len(names) == 1:
		return found, nil
	case len(names) > 1:
		return nil, fmt.Errorf("databases here: %s; say which with -f and its manada.yaml, or a repmgr.conf with its node_name", strings.Join(names, ", "))
	case f.node != "":
		return nil, fmt.Errorf("no database %s is on this machine", f.node)
	}
	return nil, errors.New("no database is on this machine")
}

// pair is a line of the output; csvOnly ones are not in the text.
type pair struct {
	key, value string
	csvOnly    bool
}

// status prints a node's facts as repmgr does and returns the exit code.
func status(out, errw io.Writer, n *node, all []*node, s postgres.Facts, o options) int {
	lines := facts(n, s, o)
	var r report
	if !s.InRecovery {
		r.downstream(n, all, s)
		r.say(errw, o)
	} else if n.primary {
		r.warn("- node is registered as primary but running as standby")
	}
	if !n.primary && !s.InRecovery {
		r.warn("- node is registered as standby but running as primary")
	}
	if len(s.InactiveSlots) > 0 {
		r.warn("- node has %d inactive physical replication slots", len(s.InactiveSlots))
		for _, slot := range s.InactiveSlots {
			r.warn("  - %s", slot)
		}
	}
	if o.csv {
		printCSV(out, n, lines, s)
	} else {
		fmt.Fprintf(out, "Node \"%s\":\n", n.name)
		for _, p := range lines {
			if !p.csvOnly {
				fmt.Fprintf(out, "\t%s: %s\n", p.key, p.value)
			}
		}
		fmt.Fprintln(out)
	}
	if len(r.warnings) == 0 {
		return success
	}
	if !o.terse && !o.csv && !o.quiet {
		fmt.Fprintln(errw, "WARNING: following issue(s) were detected:")
		for _, w := range r.warnings {
			fmt.Fprintf(errw, "  %s\n", w)
		}
		fmt.Fprintln(errw, "HINT: execute \"manada status\" for more details")
	}
	return errNodeStatus
}

func facts(n *node, s postgres.Facts, o options) []pair {
	archiving, pending := "enabled", fmt.Sprintf("%d pending files", s.ReadyFiles)
	if s.InRecovery && s.ArchiveMode == "on" {
		archiving = `disabled (on standbys "archive_mode" must be set to "always" to be effective)`
	}
	if o.csv {
		pending = fmt.Sprint(s.ReadyFiles)
	}
	slots := fmt.Sprintf("%d physical (of maximal %d; 0 missing)", s.ActiveSlots+len(s.InactiveSlots), s.MaxSlots)
	if len(s.InactiveSlots) > 0 {
		slots += fmt.Sprintf("; %d inactive", len(s.InactiveSlots))
	}
	role := n.role()
	ps := []pair{
		{"PostgreSQL version", s.Version, false}, {"Total data size", s.Size, false}, {"Conninfo", n.conninfo, false}, {"Role", role, false},
		{"WAL archiving", archiving, false}, {"Archive command", s.ArchiveCommand, false}, {"WALs pending archiving", pending, false},
		{"Replication connections", fmt.Sprintf("%d (of maximal %d)", s.Senders, s.MaxSenders), false}, {"Replication slots", slots, false},
	}
	if n.primary || n.upstream == nil {
		return append(ps, pair{"Upstream node", "(none)", true}, pair{"Replication lag", "n/a", false},
			pair{"Last received LSN", "(none)", true}, pair{"Last replayed LSN", "(none)", true})
	}
	return append(ps, pair{"Upstream node", fmt.Sprintf("%s (ID: %d)", n.upstream.name, n.upstream.id), false},
		pair{"Replication lag", fmt.Sprintf("%d seconds", s.LagSeconds), false},
		pair{"Last received LSN", s.Received.String(), false}, pair{"Last replayed LSN", s.Replayed.String(), false})
}

func printCSV(out io.Writer, n *node, lines []pair, s postgres.Facts) {
	fmt.Fprintf(out, "\"Node name\",\"%s\"\n\"Node ID\",\"%d\"\n", n.name, n.id)
	for _, p := range lines {
		fmt.Fprintf(out, "\"%s\",\"%s\"\n", p.key, p.value)
	}
	fmt.Fprintf(out, "\"max_wal_senders\",%d\n\"occupied_wal_senders\",%d\n\"max_replication_slots\",%d\n\"active_replication_slots\",%d\n",
		s.MaxSenders, s.Senders, s.MaxSlots, s.ActiveSlots)
	fmt.Fprintf(out, "\"inactive_replication_slots\",%d", len(s.InactiveSlots))
	for _, slot := range s.InactiveSlots {
		fmt.Fprintf(out, ",\"%s\"", slot)
	}
	fmt.Fprint(out, "\n\"missing_replication_slots\",0\n")
}

// downstream looks for standbys that should stream from a primary.
func (r *report) downstream(n *node, all []*node, s postgres.Facts) {
	var missing []*node
	expected := 0
	for _, d := range all {
		if d.upstream != n {
			continue
		}
		expected++
		if !slices.Contains(s.Attached, d.name) {
			missing = append(missing, d)
			r.notFound(d)
		}
	}
	if len(missing) == 0 {
		return
	}
	r.warn("- %d of %d downstream nodes not attached:", len(missing), expected)
	for _, d := range missing {
		r.warn("  - %s (ID: %d)\n", d.name, d.id)
	}
}
