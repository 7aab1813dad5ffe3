package rotate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/pki"
)

// How long a step waits for hosts: for all of them, and for those that are up.
// One that comes later takes up what it missed.
const (
	patience     = 3 * time.Second
	patienceUp   = 10 * time.Second
	patienceKeys = 30 * time.Second
)

// errOvertaken ends a change that somebody else has made meanwhile.
var errOvertaken = errors.New("somebody else took this step")

// Order files an order; the leader's host carries it out.
func (k *Keeper) Order(ctx context.Context, o pki.Order) error {
	err := k.update(ctx, func(v *pki.Vault) error {
		if o.Wants(pki.RotateFinish) {
			if late := k.notFinished(v); late != nil {
				return late
			}
		}
		if err := v.Ask(o); err != nil {
			return peer.Refuse(http.StatusConflict, "not_now", "manada secrets status", "%v", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.cfg.Event("secrets_ordered", "new secrets were ordered: "+strings.Join(o.What, ", "))
	return nil
}

// notFinished says who would be cut off if the former authority ended now.
func (k *Keeper) notFinished(v *pki.Vault) error {
	k.mu.Lock()
	all := nodes(pki.Recipients(k.list))
	k.mu.Unlock()
	behind := v.Behind(all)
	for _, n := range v.Voters() {
		if !slices.Contains(behind, n) {
			behind = append(behind, n)
		}
	}
	if len(behind) == 0 {
		return nil
	}
	slices.Sort(behind)
	return peer.Refuse(http.StatusConflict, "hosts_behind", "start them, or take them out of the herd (manada node remove), and try again; a voter needs some seconds, with one that is down half a minute: manada secrets status",
		"%s would be cut off: they have not taken up the new authority yet", strings.Join(behind, ", "))
}

// lead takes the next step, if one is due.
func (k *Keeper) lead(ctx context.Context) error {
	k.mu.Lock()
	v, list, since := k.vault, k.list, time.Since(k.since)
	k.mu.Unlock()
	if v == nil {
		return nil
	}
	to := pki.Recipients(list)
	if err := k.resupply(ctx, v, to); err != nil {
		return err
	}
	switch {
	case v.Spreading && k.spread(v, nodes(to), since):
		return k.change(ctx, v)
	case v.Closing && k.renewed(v, nodes(to), since):
		return k.close(ctx, v)
	case v.Pending != nil && v.Idle():
		return k.begin(ctx, to)
	}
	return nil
}

// resupply packs parcels for hosts that have none they can open.
func (k *Keeper) resupply(ctx context.Context, v *pki.Vault, to []pki.Recipient) error {
	if v.Generation == 0 || !v.Lacks(to) {
		return nil
	}
	return k.update(ctx, func(now *pki.Vault) error {
		_, err := now.Resupply(k.cfg.Identity, to)
		return err
	})
}

// spread says whether enough hosts hold the new passwords: PostgreSQL may have
// them.
func (k *Keeper) spread(v *pki.Vault, all []string, since time.Duration) bool {
	switch missing := v.Without(all); {
	case slices.Contains(missing, k.cfg.Identity.Node()):
		return false
	case len(missing) == 0:
		return true
	}
	return since > patienceUp || since > patience && len(v.Without(k.up(all))) == 0
}

func (k *Keeper) renewed(v *pki.Vault, all []string, since time.Duration) bool {
	return len(v.Behind(all)) == 0 || since > patienceKeys || since > patience && len(v.Behind(k.up(all))) == 0
}

// up are those of the hosts that are heard.
func (k *Keeper) up(all []string) []string {
	heard := k.cfg.Up()
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !slices.Contains(heard, n) })
}

// change gives PostgreSQL the passwords that the hosts hold, and then tells them
// to use them. It may be repeated: who has its password already keeps it.
func (k *Keeper) change(ctx context.Context, v *pki.Vault) error {
	held, err := pki.ReadHeld(k.cfg.Identity.Dir())
	if err != nil {
		return err
	}
	if held.Generation != v.Generation || held.Next == nil {
		return nil // not taken up yet
	}
	changed := map[string]string{}
	for role, p := range held.Next {
		if held.Passwords[role] != p {
			changed[role] = p
		}
	}
	// What else looks after the roles shall want the same.
	if err := k.cfg.Database.Use(held.Next, held.Passwords); err != nil {
		return err
	}
	if _, err := k.cfg.Database.ChangePasswords(ctx, changed); err != nil {
		return errors.Join(err, k.cfg.Database.Use(held.Passwords, held.Next))
	}
	if err := k.advance(ctx, v.Generation, func(now *pki.Vault) error { now.Spreading = false; return nil }); err != nil {
		return err
	}
	text := "the passwords of the herd's roles are new"
	for role, why := range v.Last.Kept {
		text += fmt.Sprintf("; that of %s was left: %s", role, why)
	}
	k.cfg.Event("passwords_changed", text)
	return k.Step(ctx)
}

// close ends the trust in the former authority among hosts.
func (k *Keeper) close(ctx context.Context, v *pki.Vault) error {
	if err := k.advance(ctx, v.Generation, func(now *pki.Vault) error { return now.Closed() }); err != nil {
		return err
	}
	k.cfg.Event("authority_closed", "hosts do not believe the former authority any more")
	return k.Step(ctx)
}

// advance changes the vault if it still is of that generation.
func (k *Keeper) advance(ctx context.Context, generation uint64, change func(*pki.Vault) error) error {
	return k.update(ctx, func(now *pki.Vault) error {
		if now.Generation != generation {
			return errOvertaken
		}
		return change(now)
	})
}

// begin makes the next generation out of what was ordered.
func (k *Keeper) begin(ctx context.Context, to []pki.Recipient) error {
	keep, err := k.byHand(ctx)
	if err != nil {
		return err
	}
	var made *pki.Vault
	err = k.update(ctx, func(v *pki.Vault) error {
		if v.Pending == nil || !v.Idle() {
			return errOvertaken
		}
		made = v
		return v.Begin(k.cfg.Identity, to, keep, time.Now())
	})
	if err != nil {
		return err
	}
	k.cfg.Event("secrets_made", fmt.Sprintf("generation %d of the herd's secrets: %s", made.Generation, strings.Join(made.Last.What, ", ")))
	return k.Step(ctx)
}

// Choose notes that people chose the role's password, which PostgreSQL has
// already.
func (k *Keeper) Choose(ctx context.Context, role, password string) error {
	k.mu.Lock()
	to := pki.Recipients(k.list)
	k.mu.Unlock()
	err := k.update(ctx, func(v *pki.Vault) error { return v.Choose(k.cfg.Identity, to, role, password) })
	if err != nil {
		return err
	}
	return k.Step(ctx)
}

// byHand names the superuser when its password is not the one that is known
// here: somebody changed it, and only he knows what it is.
func (k *Keeper) byHand(ctx context.Context) (map[string]string, error) {
	held, err := pki.ReadHeld(k.cfg.Identity.Dir())
	if err != nil {
		return nil, err
	}
	ours, err := k.cfg.Database.HasPassword(ctx, cluster.RoleSuperuser, held.Candidates(cluster.RoleSuperuser)...)
	if err != nil || ours {
		return nil, err
	}
	return map[string]string{cluster.RoleSuperuser: "it was changed by hand; tell the herd:  manada secrets set superuser < file"}, nil
}
