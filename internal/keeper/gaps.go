package keeper

import (
	"context"
	"slices"
	"time"

	"manada/internal/backup"
)

const (
	// gapPatience is how long WAL may be missing before that is told: after a
	// takeover the new primary archives what the old one had not.
	gapPatience = 30 * time.Second
	// gapShare bounds the share of the time that is spent on looking for gaps.
	gapShare = 100
)

// KnownGap is a gap of the archive and since when it is known.
type KnownGap struct {
	backup.Gap
	Since time.Time `json:"since"`
}

// LookForGaps compares what the backups need of the archive with what is there,
// and remembers what is missing.
func (k *Keeper) LookForGaps(ctx context.Context) error {
	r := k.cfg.Retention
	found, err := backup.FindGaps(ctx, k.cfg.Storage, k.cfg.Stanza, r.Archive != 0 && r.Archive != r.Full)
	if err != nil {
		return err
	}
	now := k.cfg.Now().UTC().Round(0)
	return k.memory.update(func(m *Memory) bool {
		var gaps []KnownGap
		for _, g := range found {
			since := now
			if i := slices.IndexFunc(m.Gaps, func(o KnownGap) bool { return o.First == g.First }); i >= 0 {
				since = m.Gaps[i].Since
			} else {
				k.cfg.Log.Warn("the archive lacks WAL", "first", g.First, "last", g.Last, "backup", g.Backup)
			}
			gaps = append(gaps, KnownGap{g, since})
		}
		changed := !slices.Equal(gaps, m.Gaps)
		m.Gaps = gaps
		return changed
	})
}

// settled are the gaps that nobody is about to fill.
func settled(gaps []KnownGap, now time.Time) []KnownGap {
	return slices.DeleteFunc(slices.Clone(gaps), func(g KnownGap) bool { return now.Sub(g.Since) < gapPatience })
}
