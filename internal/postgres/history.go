package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// fillerText makes a history file that names no parent: PostgreSQL counts it
// when it looks for the newest timeline and never follows it (finding M7).
const fillerText = "# manada: this timeline was allocated by the herd and never used\n"

// switchPoint is a line of a history file: the parent and where it was left.
type switchPoint struct {
	parent cluster.Timeline
	at     cluster.LSN
}

func (i *Instance) historyPath(t cluster.Timeline) string {
	return filepath.Join(i.cfg.DataDir, "pg_wal", t.HistoryFile())
}

// history reads the ancestors of a timeline, oldest first.
func (i *Instance) history(t cluster.Timeline) ([]switchPoint, error) {
	return readHistory(i.historyPath(t))
}

func readHistory(path string) ([]switchPoint, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	line, err := cluster.ParseHistory(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var out []switchPoint
	for _, s := range line {
		out = append(out, switchPoint{s.Timeline, s.End})
	}
	return out, nil
}

// isFiller says whether the timeline's history file is one of ours; false when
// there is none.
func (i *Instance) isFiller(t cluster.Timeline) bool {
	b, err := os.ReadFile(i.historyPath(t))
	return err == nil && string(b) == fillerText
}

// fillTimelines puts history files for the unused timelines below the allocated
// one into pg_wal, so that PostgreSQL picks exactly that one. One that exists is
// never touched: it tells a real fork.
func (i *Instance) fillTimelines(allocated cluster.Timeline) error {
	for t := cluster.Timeline(2); t < allocated; t++ {
		if _, err := os.Stat(i.historyPath(t)); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := durable.Write(i.historyPath(t), []byte(fillerText), durable.Options{}); err != nil {
			return err
		}
	}
	if _, err := os.Stat(i.historyPath(allocated)); err == nil {
		if !i.isFiller(allocated) {
			return fmt.Errorf("timeline %d is in use already: pg_wal has its history file", allocated)
		}
		return durable.Remove(i.historyPath(allocated))
	}
	return nil
}

// dropTrailingFillers removes our fillers from the end of the chain of history
// files: a standby that starts would take the last of the chain for its target,
// and refuse it, for it names no parent. Those in the middle stay: a downstream
// standby fetches every one of them.
func (i *Instance) dropTrailingFillers() error {
	c, err := ReadControl(i.cfg.DataDir)
	if err != nil {
		return err
	}
	last := c.Timeline
	for {
		if _, err := os.Stat(i.historyPath(last + 1)); err != nil {
			break
		}
		last++
	}
	for ; last > c.Timeline && i.isFiller(last); last-- {
		if err := durable.Remove(i.historyPath(last)); err != nil {
			return err
		}
	}
	return nil
}
