package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// SlotWanted is a replication slot that should exist. Advance is how far the
// slot may move on a standby (what the peer has flushed), 0: leave it.
type SlotWanted struct {
	Name    string
	Advance cluster.LSN
}

// EnsureSlots makes the member slots exist (on standbys too, for none survive a
// promotion otherwise: trap T12), drops others of ours that nobody uses, makes
// lost ones anew, and on a standby moves idle ones on, never past what was
// replayed. Slots not named manada_... are left alone.
func (i *Instance) EnsureSlots(ctx context.Context, want []SlotWanted) error {
	res, err := i.query(ctx, `select slot_name, active, restart_lsn, wal_status from pg_replication_slots where slot_type = 'physical';
select r, case when r then pg_last_wal_replay_lsn() end from (select pg_is_in_recovery() r) x`)
	if err != nil {
		return fmt.Errorf("ensure slots: %w", err)
	}
	have := map[string]Slot{}
	for _, r := range res[0] {
		have[string(r[0])] = Slot{Name: string(r[0]), Active: boolOf(r[1]), Restart: lsnOf(r[2]), Status: string(r[3])}
	}
	standby, replayed := boolOf(res[1][0][0]), lsnOf(res[1][0][1])
	var errs []error
	do := func(sql string) {
		if _, err := i.query(ctx, sql); err != nil {
			errs = append(errs, err)
		}
	}
	for _, w := range want {
		s, ok := have[w.Name]
		delete(have, w.Name)
		if ok && s.Status == "lost" && !s.Active {
			do("select pg_drop_replication_slot(" + literal(w.Name) + ")")
			ok = false
		}
		if !ok {
			do("select pg_create_physical_replication_slot(" + literal(w.Name) + ", true)")
			continue
		}
		if to := min(w.Advance, replayed); standby && !s.Active && s.Restart != 0 && to > s.Restart {
			do("select pg_replication_slot_advance(" + literal(w.Name) + ", " + literal(to.String()) + ")")
		}
	}
	for name, s := range have {
		if strings.HasPrefix(name, "manada_") && !s.Active {
			do("select pg_drop_replication_slot(" + literal(name) + ")")
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ensure slots: %w", err)
	}
	return nil
}
