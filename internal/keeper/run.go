package keeper

import (
	"context"
	"errors"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
)

// Run looks at the repository all the time, reads new backups back and expires
// what was waiting for that, until ctx ends.
func (k *Keeper) Run(ctx context.Context, g *Guard) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	gapsAt := time.Time{} // when to look for gaps next
	for n := 0; ; n++ {
		if node, swept := g.Sweep(); swept {
			k.cfg.Log.Warn("took back the lock of the stanza: it was held for too long", "peer", node)
		}
		k.trouble(ctx, k.tend(ctx, n%60 == 1))
		if begun := time.Now(); begun.After(gapsAt) {
			k.trouble(ctx, k.LookForGaps(ctx))
			gapsAt = begun.Add(gapShare * time.Since(begun))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tend looks, and now and then reads back and expires.
func (k *Keeper) tend(ctx context.Context, all bool) error {
	if err := k.Look(ctx); err != nil || !all {
		return err
	}
	if err := k.ReadBack(ctx); err != nil {
		return err
	}
	_, err := k.ExpireBackups(ctx, k.cfg.Stanza, k.cfg.Retention, false)
	return err
}

// trouble tells what went wrong; that somebody makes a backup, or that there is no
// stanza yet, is nothing wrong.
func (k *Keeper) trouble(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, blob.ErrLocked) || backup.Code(err) == backup.CodeLock || backup.Code(err) == backup.CodeFileMissing {
		return
	}
	k.cfg.Log.Warn("cannot look after the repository", "error", err.Error())
}
