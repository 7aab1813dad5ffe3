package postgres

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// RecoverAlong makes the recovery of an order begin again, along the timeline on
// which its target was found to lie and exactly to there. PostgreSQL names the
// timeline along which it recovers as the parent of the one that a promotion
// begins, also when it stopped on an ancestor of it: that history would go back
// in time, and pg_rewind and everybody else reckon with it. PostgreSQL is stopped.
func (i *Instance) RecoverAlong(id string, along cluster.Timeline, stop cluster.LSN) error {
	err := i.alone("change of the recovery's timeline", func() error {
		m, err := i.markOf(id)
		if err != nil {
			return err
		}
		m.Along, m.Stop = along, stop
		return i.writeRestoreMark(m)
	})
	if err != nil {
		return fmt.Errorf("recover along timeline %d: %w", along, err)
	}
	return nil
}

// line is the timeline along which the mark's recovery goes.
func (m *RestoreMark) line() cluster.Timeline {
	if m.Along != 0 {
		return m.Along
	}
	return m.Order.Timeline
}

// endWAL makes pg_wal end at the mark's stop, on its timeline: what the first
// recovery has fetched is there, whatever the archive holds beyond. Before each
// start of the second recovery; it may be repeated.
func (i *Instance) endWAL(m *RestoreMark) error {
	if err := i.cutWAL(m); err != nil {
		return fmt.Errorf("end the WAL at %s on timeline %d: %w", m.Stop, m.Along, err)
	}
	return nil
}

func (i *Instance) cutWAL(m *RestoreMark) error {
	c, err := ReadControl(i.cfg.DataDir)
	if err != nil {
		return err
	}
	r, err := newWALReader(i.cfg.DataDir, &c)
	if err != nil {
		return err
	}
	defer r.close()
	w := &walWalk{r: r, at: c.Redo}
	there, err := w.to(m.Stop)
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("the WAL from %s to there is not in pg_wal any more: manada restore --herd --undo", c.Redo)
	}
	if err := i.lineHistory(m); err != nil {
		return err
	}
	// A segment in which the timeline ends was fetched as its child's, which
	// begins with a copy of it.
	last := m.Stop - 1
	from, to := i.segmentPath(w.tli, last, c.SegmentSize), i.segmentPath(m.Along, last, c.SegmentSize)
	if err := copyPart(from, to, int64(uint64(last)%c.SegmentSize)+1, int64(c.SegmentSize)); err != nil {
		return err
	}
	for seg, timelines := range r.files {
		for _, t := range timelines {
			path := i.segmentPath(t, cluster.LSN(seg*c.SegmentSize), c.SegmentSize)
			if seg > uint64(last)/c.SegmentSize || seg == uint64(last)/c.SegmentSize && t > m.Along {
				if err := durable.Remove(path); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (i *Instance) segmentPath(t cluster.Timeline, at cluster.LSN, size uint64) string {
	return filepath.Join(i.cfg.DataDir, "pg_wal", t.Segment(at, size))
}

// copyPart copies the first n bytes of a file and fills the rest up to size with
// zeros. From and to may be the same.
func copyPart(from, to string, n, size int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := durable.Create(to, durable.Options{})
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.CopyN(out, in, n); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	zeros := make([]byte, 1<<20)
	for n < size {
		k, err := out.Write(zeros[:min(int64(len(zeros)), size-n)])
		if err != nil {
			return err
		}
		n += int64(k)
	}
	return out.Commit()
}

// lineHistory puts the history file of the mark's timeline into pg_wal: the
// beginning of that of the order's, an heir of it.
func (i *Instance) lineHistory(m *RestoreMark) error {
	if m.Along == 1 {
		return nil
	}
	if _, err := os.Stat(i.historyPath(m.Along)); err == nil && !i.isFiller(m.Along) {
		return nil
	}
	f, err := os.Open(i.historyPath(m.Order.Timeline))
	if err != nil {
		return err
	}
	defer f.Close()
	var b strings.Builder
	found := false
	for s := bufio.NewScanner(f); s.Scan() && !found; {
		parent, _, _ := strings.Cut(strings.TrimSpace(s.Text()), "\t")
		if found = parent == fmt.Sprint(m.Along); !found {
			fmt.Fprintln(&b, s.Text())
		}
	}
	if !found {
		return fmt.Errorf("timeline %d is no ancestor of %d", m.Along, m.Order.Timeline)
	}
	return durable.Write(i.historyPath(m.Along), []byte(b.String()), durable.Options{})
}

// ErrHistory: a timeline's history goes back in time. Whoever follows it is
// misled about where histories part.
var ErrHistory = errors.New("its history goes back in time")

// CheckHistory says whether the newest branch that a history file tells of lies
// where a branch can be: on the timeline that it leaves.
func CheckHistory(path string) error {
	h, err := readHistory(path)
	if err != nil {
		return err
	}
	if n := len(h); n >= 2 && (h[n-1].at < h[n-2].at || h[n-1].parent <= h[n-2].parent) {
		return fmt.Errorf("%s: %w: timeline %d is left at %s, it began at %s",
			filepath.Base(path), ErrHistory, h[n-1].parent, h[n-1].at, h[n-2].at)
	}
	return nil
}

// MendHistory makes the newest history file of a WAL folder grow, when it goes
// back in time: the copy that began this timeline recovered along one that had
// been left behind the end of its recovery, and branches off that one's ancestor.
// Nothing may have read the file yet. It says what the file said, "" when it was
// right.
func MendHistory(walDir string) (was string, err error) {
	files, err := filepath.Glob(filepath.Join(walDir, "????????.history"))
	if err != nil || len(files) == 0 {
		return "", err
	}
	path := files[len(files)-1] // Glob sorts, and the names are of one length
	err = CheckHistory(path)
	if !errors.Is(err, ErrHistory) {
		return "", err
	}
	was = err.Error()
	if err := mendHistory(path); err != nil {
		return "", fmt.Errorf("mend %s: %w", filepath.Base(path), err)
	}
	return was, nil
}

// mendHistory leaves out the branches that lie behind the newest one, which then
// leaves the timeline on which it lies.
func mendHistory(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	h, err := readHistory(path)
	if err != nil {
		return err
	}
	fork, parent := h[len(h)-1].at, h[len(h)-1].parent
	for _, p := range h {
		if p.at > fork {
			parent = p.parent
			break
		}
	}
	var out strings.Builder
	reason := ""
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if at, err := cluster.ParseLSN(f[1]); err != nil {
			return err
		} else if at <= fork && f[0] != fmt.Sprint(h[len(h)-1].parent) {
			out.WriteString(line)
		}
		reason = strings.Join(f[2:], " ")
	}
	fmt.Fprintf(&out, "%d\t%s\t%s\n", parent, fork, reason)
	if err := durable.Write(path, []byte(out.String()), durable.Options{}); err != nil {
		return err
	}
	return CheckHistory(path)
}

// historyFault is what is wrong with the history of the timeline that this
// primary began, "" when nothing is.
func (i *Instance) historyFault(t cluster.Timeline) string {
	if err := CheckHistory(i.historyPath(t)); errors.Is(err, ErrHistory) {
		return err.Error()
	}
	return ""
}

// mayBranch refuses the promotion of a restored directory whose history would go
// back in time.
func (i *Instance) mayBranch(m *RestoreMark, at cluster.LSN) error {
	if m == nil {
		return nil
	}
	if t := i.timelineAt(m.line(), at); t != m.line() {
		return fmt.Errorf("%w: recovery along timeline %d ended at %s, on timeline %d", ErrHistory, m.line(), at, t)
	}
	return nil
}
