package health

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"manada/internal/cluster"
)

// Options of Text.
type Options struct {
	Width   int  // columns of the terminal; 0: 80. Never wider than 100.
	Color   bool // SGR colours; never the only signal
	Unicode bool // the terminal shows more than ASCII
}

// Text prints a status on one screen. The first line says which herd, how it is
// in one word, and why; then come the nodes, what commits wait for, the store
// and the backups; then every condition with what to do about it.
func Text(w io.Writer, s cluster.Status, o Options) error {
	p := printer{s: s, o: o, width: 80}
	if o.Width > 0 {
		p.width = min(max(o.Width, 40), 100)
	}
	p.headline()
	p.line("")
	if len(s.Nodes) > 0 {
		p.table()
		p.line("")
	}
	p.facts("commit", p.commitFacts())
	p.facts("failover", []string{Failover(s).Text})
	p.facts("store", []string{p.storeFact(s.Store)})
	p.facts("protect", p.protectFacts())
	if s.SeenFrom != "" {
		p.facts("seen from", []string{s.SeenFrom})
	}
	p.conditions()
	_, err := io.WriteString(w, p.out.String())
	return err
}

type printer struct {
	s     cluster.Status
	o     Options
	width int
	out   strings.Builder
}

// line ends a line; blanks at its end are never printed.
func (p *printer) line(s string) { p.out.WriteString(strings.TrimRight(s, " ") + "\n") }

func (p *printer) headline() {
	name := p.s.Cluster
	if name == "" {
		name = "herd"
	}
	word := strings.ToUpper(string(p.s.Health))
	room := p.width - utf8.RuneCountInString(name) - len(word) - 4
	more := ""
	if n := len(grave(p.s)); n > 1 {
		more = fmt.Sprintf(" (+%d)", n-1)
	}
	p.line(name + "  " + p.paint(word, colorOf(p.s.Health)) + "  " + p.cut(Why(p.s), room-len(more)) + more)
}

// Why is the reason for a status' health in one sentence: the gravest
// condition, or who leads when there is none.
func Why(s cluster.Status) string {
	if g := grave(s); len(g) > 0 {
		return g[0].Text
	}
	return fine(s)
}

// grave are the conditions that make a herd less than ok.
func grave(s cluster.Status) []cluster.Condition {
	var out []cluster.Condition
	for _, c := range s.Conditions {
		if c.Severity != cluster.Info {
			out = append(out, c)
		}
	}
	return out
}

func fine(s cluster.Status) string {
	standbys := 0
	for _, n := range s.Nodes {
		if n.State == cluster.StateStreaming {
			standbys++
		}
	}
	switch standbys {
	case 0:
		return s.Primary + " is the primary, alone"
	case 1:
		return s.Primary + " is the primary, 1 standby streams"
	}
	return fmt.Sprintf("%s is the primary, %d standbys stream", s.Primary, standbys)
}

func (p *printer) commitFacts() []string {
	s := p.s
	if s.Epoch == 0 {
		return nil
	}
	tail := fmt.Sprintf("%s, epoch %d", s.Durability, s.Epoch)
	verb := "waits"
	if s.Primary == "" {
		verb = "waited"
	}
	switch {
	case has(s, WritesWait):
		return []string{"is not acknowledged: writes wait (" + tail + ")"}
	case s.Durability == cluster.Async:
		return []string{verb + " for nobody (" + tail + ")"}
	case s.K == 0 && s.Durability == cluster.Strict:
		return []string{"waits until a standby is there (" + tail + ")"}
	case s.K == 0:
		return []string{"on the primary alone (" + tail + ")"}
	case s.K == len(s.Sync):
		return []string{verb + " for " + strings.Join(s.Sync, " and ") + " (" + tail + ")"}
	}
	return []string{fmt.Sprintf("%s for %d of %s (%s)", verb, s.K, strings.Join(s.Sync, ", "), tail)}
}

func (p *printer) storeFact(s *cluster.StoreStatus) string {
	if s == nil {
		return "unknown"
	}
	t := fmt.Sprintf("%d of %d voters up", s.Up, s.Voters)
	switch {
	case s.UnknownSince != nil:
		return p.unknown(*s.UnknownSince) + "; last known: " + t
	case !s.HasQuorum():
		return t + ", no quorum"
	}
	return t + optional(", leader ", s.Leader)
}

// unknown is how long something could not be asked.
func (p *printer) unknown(since time.Time) string {
	return "unknown for " + duration(p.s.At.Sub(since))
}

func (p *printer) protectFacts() []string {
	b := p.s.Backup
	switch {
	case has(p.s, BackupsOff):
		return []string{"no backups, as backup.enabled says"}
	case has(p.s, NoRepository):
		return []string{"no backups: no host has the role repository"}
	case b == nil:
		return []string{"unknown"}
	}
	var lines []string
	last := "no backup"
	switch {
	case b.Last != nil:
		last = fmt.Sprintf("last backup %s ago (%s %s)", duration(p.s.At.Sub(b.Last.Stop)), b.Last.Type, b.Last.Label)
	case b.UnknownSince != nil:
		last = "nothing"
	}
	if b.UnknownSince != nil {
		last = p.unknown(*b.UnknownSince) + "; last known: " + last
	}
	lines = append(lines, last)
	if b.RestorableFrom != nil {
		to := "now"
		switch {
		case b.RestorableTo != nil:
			to = minute(*b.RestorableTo)
		case b.UnknownSince != nil:
			to = minute(*b.UnknownSince)
		}
		lines = append(lines, fmt.Sprintf("restorable from %s to %s UTC", minute(*b.RestorableFrom), to))
	}
	if n := b.Next; n != nil {
		lines = append(lines, fmt.Sprintf("next backup %s UTC (%s)", minute(n.At), n.Type))
	}
	return append(lines, p.archiveFact(b))
}

func (p *printer) archiveFact(b *cluster.BackupStatus) string {
	word := "ok"
	switch {
	case has(p.s, ArchiveFailing), has(p.s, ArchiveOther):
		word = "FAILING"
	case has(p.s, ArchiveGap):
		word = "has a gap"
	case has(p.s, SegmentsWaiting):
		word = "is behind"
	case b.UnknownSince != nil && (b.WaitingSegments == nil || *b.WaitingSegments > 0):
		word = p.unknown(*b.UnknownSince)
	case b.WaitingSegments == nil:
		word = "unknown, no primary says what waits"
	}
	t := "archive " + word
	if b.WaitingSegments != nil {
		t += fmt.Sprintf(", %d segments waiting", *b.WaitingSegments)
	}
	if b.RestoreTested != nil {
		return t + "; restore tested " + duration(p.s.At.Sub(*b.RestoreTested)) + " ago"
	}
	return t
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// facts prints a label and its lines under one another.
func (p *printer) facts(label string, lines []string) {
	for i, l := range lines {
		if i > 0 {
			label = ""
		}
		first := fmt.Sprintf(" %-9s ", label)
		for j, part := range wrap(l, p.width-len(first)) {
			if j > 0 {
				first = strings.Repeat(" ", len(first))
			}
			p.line(first + part)
		}
	}
}

func (p *printer) conditions() {
	if len(p.s.Conditions) == 0 {
		return
	}
	p.line("")
	for _, c := range p.s.Conditions {
		mark, color := " ! ", yellow
		switch c.Severity {
		case cluster.Fatal:
			mark, color = "!! ", red
		case cluster.Info:
			mark, color = " - ", ""
		}
		lead := mark + c.Code + " "
		pad := strings.Repeat(" ", len(lead))
		for i, part := range wrap(c.Text, p.width-len(lead)) {
			if i == 0 {
				p.line(p.paint(mark+c.Code, color) + " " + part)
			} else {
				p.line(pad + part)
			}
		}
		if c.Hint == "" {
			continue
		}
		const hint = "   hint: "
		for i, part := range wrap(c.Hint, p.width-len(hint)) {
			if i == 0 {
				p.line(hint + part)
			} else {
				p.line(strings.Repeat(" ", len(hint)) + part)
			}
		}
	}
}

// cut shortens to n columns and shows that it did.
func (p *printer) cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	more := "..."
	if p.o.Unicode {
		more = "…"
	}
	keep := max(n-utf8.RuneCountInString(more), 0)
	return strings.TrimRight(string(r[:keep]), " ") + more
}

const (
	red    = "31"
	yellow = "33"
	green  = "32"
)

func colorOf(h cluster.Health) string {
	switch h {
	case cluster.HealthOK:
		return green
	case cluster.HealthDegraded:
		return yellow
	}
	return red
}

func (p *printer) paint(s, color string) string {
	if !p.o.Color || color == "" {
		return s
	}
	return "\x1b[1;" + color + "m" + s + "\x1b[0m"
}
