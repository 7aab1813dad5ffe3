package health

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"manada/internal/cluster"
)

// column of the table of nodes. drop is the order in which columns give way on
// a narrow terminal, 0 never.
type column struct {
	head string
	drop int
	cell func(cluster.NodeStatus) string
}

var columns = []column{
	{"NODE", 0, func(n cluster.NodeStatus) string { return n.Name }},
	{"ROLE", 0, func(n cluster.NodeStatus) string { return cmp.Or(string(n.Role), "-") }},
	{"STATE", 0, func(n cluster.NodeStatus) string { return string(n.State) }},
	{"TL", 1, func(n cluster.NodeStatus) string {
		if n.Timeline == 0 {
			return "-"
		}
		return fmt.Sprint(uint32(n.Timeline))
	}},
	{"LAG", 4, lagCell},
	{"SYNC", 3, func(n cluster.NodeStatus) string {
		return cmp.Or(n.Sync, "-")
	}},
	{"SEEN", 2, func(n cluster.NodeStatus) string {
		if n.SeenMS == nil {
			return "never"
		}
		return duration(time.Duration(*n.SeenMS) * time.Millisecond)
	}},
}

func lagCell(n cluster.NodeStatus) string {
	if n.Role != cluster.RoleStandby || (n.LagBytes == nil && n.LagMS == nil) {
		return "-"
	}
	var parts []string
	if n.LagBytes != nil {
		parts = append(parts, bytesOf(*n.LagBytes))
	}
	if n.LagMS != nil {
		parts = append(parts, duration(time.Duration(*n.LagMS)*time.Millisecond))
	}
	return strings.Join(parts, " / ")
}

// mark shows at a glance who leads (*) and who is not as it should be (!).
func (p *printer) mark(n cluster.NodeStatus) string {
	switch {
	case n.Name == p.s.Primary && n.State == cluster.StateRunning:
		return "*"
	case n.State == cluster.StateRunning, n.State == cluster.StateStreaming:
		return " "
	}
	return "!"
}

func (p *printer) table() {
	cols := columns
	widths := p.widths(cols)
	for drop := 1; drop <= 4 && total(widths) > p.width; drop++ {
		if total(widths)-widths[0]+minName <= p.width {
			break // shortening names is enough
		}
		var keep []column
		for _, c := range cols {
			if c.drop != drop {
				keep = append(keep, c)
			}
		}
		cols = keep
		widths = p.widths(cols)
	}
	if over := total(widths) - p.width; over > 0 {
		widths[0] = max(widths[0]-over, minName)
	}
	p.row(" ", cols, widths, func(c column) string { return c.head }, "")
	for _, n := range p.s.Nodes {
		m := p.mark(n)
		color := ""
		if m == "!" {
			color = yellow
			if n.State == cluster.StateUnreachable || n.State == cluster.StateStopped || n.State == cluster.StateDown || n.State == cluster.StateCannotCommit {
				color = red
			}
		}
		p.row(m, cols, widths, func(c column) string { return c.cell(n) }, color)
	}
}

// minName is the least width to which names are shortened.
const minName = 12

func (p *printer) widths(cols []column) []int {
	w := make([]int, len(cols))
	for i, c := range cols {
		w[i] = len(c.head)
		for _, n := range p.s.Nodes {
			w[i] = max(w[i], utf8.RuneCountInString(c.cell(n)))
		}
	}
	return w
}

// total is the width of a row: mark, cells, two blanks between them.
func total(widths []int) int {
	t := 1 + 2*(len(widths)-1)
	for _, w := range widths {
		t += w
	}
	return t
}

func (p *printer) row(mark string, cols []column, widths []int, cell func(column) string, color string) {
	var b strings.Builder
	for i, c := range cols {
		s := p.cut(cell(c), widths[i])
		pad := widths[i] - utf8.RuneCountInString(s)
		if c.head == "STATE" {
			s = p.paint(s, color)
		}
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(s + strings.Repeat(" ", pad))
	}
	p.line(p.paint(mark, color) + b.String())
}
