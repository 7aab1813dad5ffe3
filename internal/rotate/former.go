package rotate

import (
	"context"
	"maps"
	"slices"
	"time"

	"manada/internal/pki"
)

const (
	// authenticating is how long a login may take at most (PostgreSQL's limit of
	// authentication_timeout): one that began with a former password may become
	// a session that much later.
	authenticating = 10 * time.Minute
	// restarted is how old a removal may be when the process begins; the
	// sessions of an older one were ended by the process before.
	restarted = time.Minute
)

// former is what this host knows of the sessions that began under the passwords
// from before a removal. Only Run's goroutine uses it.
type former struct {
	order time.Time // Order.At of the removal
	end   time.Time // since when this host's PostgreSQL has the new passwords
}

// endFormer ends, after a removal, the sessions that began before this host's
// PostgreSQL had the new passwords: the removed host may have them open. Those
// of roles that kept their password stay, for they could come back at once.
func (k *Keeper) endFormer(ctx context.Context) error {
	v, db := k.Vault(), k.cfg.Database
	if db == nil || v == nil || !v.Last.Wants(pki.RotatePasswords) || len(v.Last.Removed) == 0 || v.Last.At.Before(k.born.Add(-restarted)) {
		return nil
	}
	held, err := pki.ReadHeld(k.cfg.Identity.Dir())
	if err != nil || held.Generation != v.Generation {
		return err
	}
	passwords := held.Passwords
	if held.Next != nil {
		passwords = held.Next
	}
	roles := slices.DeleteFunc(slices.Sorted(maps.Keys(passwords)), func(role string) bool { return v.Last.Kept[role] != "" })
	if len(roles) == 0 {
		return nil
	}
	if !k.former.order.Equal(v.Last.At) { // roles change all at once: one tells of all
		has, err := db.HasPassword(ctx, roles[0], passwords[roles[0]])
		if err != nil || !has {
			return err
		}
		k.former = former{v.Last.At, time.Now()}
	}
	if time.Since(k.former.end) > authenticating {
		return nil
	}
	return db.EndSessions(ctx, roles, k.former.end)
}
