package repmgr

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"manada/internal/cluster"
)

// Exit codes of repmgr.
const (
	success       = 0
	errBadConfig  = 1
	errDBConn     = 6
	errNodeStatus = 25
)

// options of a command.
type options struct {
	csv, compact, terse, verbose, quiet bool
}

// report collects what repmgr would warn of.
type report struct {
	notes    []string // said at once, also with --csv and --terse
	warnings []string
	failed   bool // something is wrong that no warning tells
}

func (r *report) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// show prints `cluster show` and returns the exit code.
func show(out, errw io.Writer, ns []*node, o options) int {
	var r report
	noConn := false
	rows := [][]string{headers(o)}
	for _, n := range ns {
		if n.conn != up {
			noConn = true
			if o.verbose {
				r.warn("when attempting to connect to node \"%s\" (ID: %d), following error encountered :\n\"%s\"", n.name, n.id, n.why)
			} else {
				r.warn("unable to connect to node \"%s\" (ID: %d)", n.name, n.id)
			}
		}
		status := r.status(n)
		rows = append(rows, cells(n, status, r.upstream(n), o))
	}
	r.say(errw, o)
	if o.csv {
		for _, n := range ns {
			fmt.Fprintf(out, "%d,%d,%d\n", n.id, available(n), recovery(n))
		}
	} else {
		table(out, rows, o)
	}
	if len(r.warnings) > 0 && !o.terse && !o.csv {
		fmt.Fprintln(out)
		r.print(errw, noConn, o)
	}
	if len(r.warnings) > 0 || r.failed {
		return errNodeStatus
	}
	return success
}

func (r *report) notFound(n *node) {
	r.notes = append(r.notes, fmt.Sprintf("WARNING: node \"%s\" not found in \"pg_stat_replication\"", n.name))
}

func (r *report) say(w io.Writer, o options) {
	for _, n := range r.notes {
		if !o.quiet {
			fmt.Fprintln(w, n)
		}
	}
}

func (r *report) print(w io.Writer, noConn bool, o options) {
	if o.quiet {
		return
	}
	fmt.Fprintln(w, "WARNING: following issues were detected")
	for _, s := range r.warnings {
		fmt.Fprintf(w, "  - %s\n", s)
	}
	fmt.Fprintln(w)
	if noConn && !o.verbose {
		fmt.Fprintln(w, "HINT: execute with --verbose option to see connection error messages")
	}
}

func headers(o options) []string {
	h := []string{"ID", "Name", "Role", "Status", "Upstream", "Location", "Priority", "Timeline", "Connection string"}
	if o.compact {
		h = append(h[:6], "Prio.", "TLI")
	}
	return h
}

func cells(n *node, status, upstream string, o options) []string {
	tl := ""
	if n.timeline != 0 {
		tl = strconv.FormatUint(uint64(n.timeline), 10)
	}
	c := []string{strconv.Itoa(n.id), n.name, n.role(), status, upstream, n.location, strconv.Itoa(n.priority), tl}
	if !o.compact {
		c = append(c, n.conninfo)
	}
	return c
}

func (n *node) role() string {
	if n.primary {
		return "primary"
	}
	return "standby"
}

// table aligns the columns. The rule is as long as the header with a blank
// behind it; the last column is padded, with a blank behind it when it is not
// the connection string.
func table(w io.Writer, rows [][]string, o options) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len(c))
		}
	}
	for n, row := range rows {
		var b, rule strings.Builder
		for i, c := range row {
			if i > 0 {
				b.WriteString("|")
				rule.WriteString("+")
			}
			fmt.Fprintf(&b, " %-*s ", width[i], c)
			rule.WriteString(strings.Repeat("-", width[i]+2))
		}
		line := b.String()
		if n == 0 || !o.compact {
			line = strings.TrimSuffix(line, " ")
		}
		fmt.Fprintln(w, line)
		if n == 0 {
			fmt.Fprintln(w, rule.String())
		}
	}
}

// status is the column Status, with its warnings.
func (r *report) status(n *node) string {
	role := n.role()
	switch {
	case n.conn == rejected && n.active:
		return "? running"
	case n.conn == rejected:
		r.failed = true
		return "! running"
	case n.conn == unreachable && n.active:
		r.warn("node \"%s\" (ID: %d) is registered as an active %s but is unreachable", n.name, n.id, role)
		return "? unreachable"
	case n.conn == unreachable:
		r.failed = true
		return "- failed"
	case !n.active: // a primary that was taken over from, and runs as one
		r.warn("node \"%s\" (ID: %d) is running but the repmgr node record is inactive", n.name, n.id)
		return "! running"
	}
	switch as := string(n.recovery); {
	case as != role:
		r.warn("node \"%s\" (ID: %d) is registered as %s but running as %s", n.name, n.id, role, as)
		return "! running as " + as
	case n.primary:
		return "* running"
	}
	return "  running"
}

// upstream is the column Upstream, with its warnings.
func (r *report) upstream(n *node) string {
	u := n.upstream
	switch {
	case n.conn != up && u != nil:
		return "? " + u.name
	case n.conn != up:
		return "? "
	case u == nil:
		return ""
	case u.conn != up:
		r.warn("unable to connect to node \"%s\" (ID: %d)'s upstream node \"%s\" (ID: %d)", n.name, n.id, u.name, u.id)
		r.warn("unable to determine if node \"%s\" (ID: %d) is attached to its upstream node \"%s\" (ID: %d)", n.name, n.id, u.name, u.id)
		return "? " + u.name
	case !n.attached:
		r.notFound(n)
		r.warn("node \"%s\" (ID: %d) is not attached to its upstream node \"%s\" (ID: %d)", n.name, n.id, u.name, u.id)
		return "! " + u.name
	}
	return u.name
}

// available and recovery are the columns of --csv.
func available(n *node) int {
	if n.conn == up {
		return 0
	}
	return -1
}

func recovery(n *node) int {
	switch {
	case n.conn != up:
		return -1
	case n.recovery == cluster.PostgresPrimary:
		return 0
	}
	return 1
}
