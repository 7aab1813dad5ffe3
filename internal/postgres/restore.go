package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// RestoreMark is StateDir/restore.json: how far this node has come with an
// order to restore the herd. It stands beside PGDATA, so that whoever is
// started again knows where to go on, or back.
type RestoreMark struct {
	Schema int             `json:"schema"` // 1
	Order  cluster.Restore `json:"order"`
	// Tail is where the WAL of the old primary ended; all of it is archived.
	Tail         cluster.LSN      `json:"tail"`
	TailTimeline cluster.Timeline `json:"tail_timeline"`
	// Touched is set before PGDATA is altered or moved aside, Restored when all
	// of the backup is in place and PGDATA has its new identity.
	Touched  bool   `json:"touched"`
	Restored bool   `json:"restored"`
	Kept     string `json:"kept,omitempty"` // where the old PGDATA is
	ToEnd    bool   `json:"to_end"`         // recover without the target
	// The target was found at Stop, on the timeline Along, an ancestor of the
	// order's: recovery begins again along that one, exactly to there.
	Along cluster.Timeline `json:"along,omitempty"`
	Stop  cluster.LSN      `json:"stop,omitempty"`
	// PromoteTo is the timeline to which it is promoted, written before.
	PromoteTo cluster.Timeline `json:"promote_to,omitempty"`
	Old       marks            `json:"old"` // what was known of the old PGDATA
}

func (i *Instance) restoreMarkPath() string { return i.statePath("restore.json") }

// RestoreMark reads the mark, nil if none.
func (i *Instance) RestoreMark() (*RestoreMark, error) {
	var m RestoreMark
	ok, err := readJSON(i.restoreMarkPath(), &m)
	if err != nil || !ok {
		return nil, err
	}
	return &m, nil
}

func (i *Instance) writeRestoreMark(m *RestoreMark) error {
	m.Schema = 1
	return writeJSON(i.restoreMarkPath(), m)
}

// markOf is the mark of the order; an error when it is another's, or none.
func (i *Instance) markOf(id string) (*RestoreMark, error) {
	m, err := i.RestoreMark()
	if err == nil && (m == nil || m.Order.ID != id) {
		err = fmt.Errorf("nothing was begun here for the order %s", id)
	}
	return m, err
}

// done says whether the recovery of the mark is over: the timeline to which it
// was to be promoted exists. It may have been promoted without having said so.
func (i *Instance) restoreDone(m *RestoreMark) bool {
	if m.PromoteTo == 0 {
		return false
	}
	_, err := os.Stat(i.historyPath(m.PromoteTo))
	return err == nil && !i.isFiller(m.PromoteTo)
}

// recovering is the mark while PostgreSQL is to recover to its target.
func (i *Instance) recovering() (*RestoreMark, error) {
	m, err := i.RestoreMark()
	if err != nil || m == nil || !m.Restored || i.restoreDone(m) {
		return nil, err
	}
	return m, nil
}

// ArchiveTail is ArchiveEnd for an order of a restore, which remembers the end.
func (i *Instance) ArchiveTail(ctx context.Context, o cluster.Restore, push func(ctx context.Context, path string) error) error {
	return i.alone("archiving of the last WAL", func() error {
		w, err := i.archiveTail(ctx, push)
		if err != nil {
			return err
		}
		old, err := i.readMarks()
		if err != nil {
			return err
		}
		return i.writeRestoreMark(&RestoreMark{Order: o, Tail: w.Complete, TailTimeline: w.Timeline, Old: old})
	})
}

// BeginRestore makes way for the backup: the poison mark first, then the old
// data is moved aside when the order wants it kept. What stands there otherwise
// is used by the restore, which replaces only what differs.
func (i *Instance) BeginRestore(ctx context.Context, id string) error {
	if err := i.alone("beginning of the restore", func() error { return i.beginRestore(ctx, id) }); err != nil {
		return fmt.Errorf("make way for the restore: %w", err)
	}
	return nil
}

func (i *Instance) beginRestore(ctx context.Context, id string) error {
	if err := i.mustBeDown(ctx); err != nil {
		return err
	}
	m, err := i.markOf(id)
	if err != nil {
		return err
	}
	m.Touched, m.Restored, m.Along, m.Stop = true, false, 0, 0
	if m.Order.KeepOld {
		m.Kept = i.cfg.DataDir + ".before-restore-" + id
	}
	if err := i.writeRestoreMark(m); err != nil {
		return err
	}
	if err := i.setPoison(Poison{What: "restore", From: m.Order.Set, Touched: true}); err != nil {
		return err
	}
	if m.Kept != "" {
		if _, err := os.Stat(m.Kept); errors.Is(err, os.ErrNotExist) {
			if err := durable.Rename(i.cfg.DataDir, m.Kept); err != nil {
				return err
			}
		}
	}
	return durable.MkdirAll(i.cfg.DataDir, 0o700)
}

// FinishRestore gives the restored directory our files and a new identity, and
// clears the poison mark. PostgreSQL recovers to the order's target when it is
// started next.
func (i *Instance) FinishRestore(ctx context.Context, id string) error {
	if err := i.alone("end of the restore", func() error { return i.finishRestore(ctx, id) }); err != nil {
		return fmt.Errorf("finish the restored directory: %w", err)
	}
	return nil
}

func (i *Instance) finishRestore(ctx context.Context, id string) error {
	if err := i.mustBeDown(ctx); err != nil {
		return err
	}
	m, err := i.markOf(id)
	if err != nil {
		return err
	}
	// What ALTER SYSTEM had set when the backup was made stays; putBackFiles
	// takes out what nobody may set.
	auto := filepath.Join(i.cfg.DataDir, "postgresql.auto.conf")
	kept, err := os.ReadFile(auto)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := i.finishRemake(i.cfg.DataDir, 0); err != nil {
		return err
	}
	if len(kept) > 0 {
		if err := durable.Write(auto, kept, durable.Options{}); err != nil {
			return err
		}
	}
	m.Restored = true
	if err := i.writeRestoreMark(m); err != nil {
		return err
	}
	return i.clearPoison()
}

// RecoverToEnd drops the order's target, with PostgreSQL stopped: it lies after
// everything there is.
func (i *Instance) RecoverToEnd(id string) error {
	err := i.alone("change of the recovery's target", func() error {
		m, err := i.markOf(id)
		if err == nil {
			m.ToEnd = true
			err = i.writeRestoreMark(m)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("recover to the end: %w", err)
	}
	return nil
}

// UndoRestore puts back what is left of the old data: nothing has to be done
// when it was not touched, what was kept is renamed back, and otherwise the
// directory stays half made and is cloned.
func (i *Instance) UndoRestore(ctx context.Context) error {
	if err := i.alone("undoing of the restore", func() error { return i.undoRestore(ctx) }); err != nil {
		return fmt.Errorf("undo the restore: %w", err)
	}
	return nil
}

func (i *Instance) undoRestore(ctx context.Context) error {
	m, err := i.RestoreMark()
	if err != nil || m == nil {
		return err
	}
	if !m.Touched {
		return i.dropRestoreMark()
	}
	if err := i.mustBeDown(ctx); err != nil {
		return err
	}
	if err := i.setPoison(Poison{What: "restore", From: m.Order.Set, Touched: true}); err != nil {
		return err
	}
	if m.Kept == "" {
		return i.dropRestoreMark()
	}
	if _, err := os.Stat(m.Kept); err == nil {
		if err := os.RemoveAll(i.cfg.DataDir); err != nil {
			return err
		}
		if err := durable.Rename(m.Kept, i.cfg.DataDir); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := i.updateMarks(func(now *marks) { *now = m.Old }); err != nil {
		return err
	}
	if err := i.clearPoison(); err != nil {
		return err
	}
	return i.dropRestoreMark()
}

func (i *Instance) dropRestoreMark() error {
	i.confMu.Lock()
	err := i.renderNoUpstream()
	i.confMu.Unlock()
	return errors.Join(err, durable.Remove(i.restoreMarkPath()))
}

// dropKept removes what an earlier restore left beside PGDATA.
func (i *Instance) dropKept() error {
	left, err := filepath.Glob(i.cfg.DataDir + ".before-restore-*")
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// ForgetRestore ends a restore that has succeeded: the mark goes, and what was
// kept of the old data. It is nothing to do while the recovery is not over.
func (i *Instance) ForgetRestore() error {
	return i.alone("removal of what a restore has left", i.forgetRestore)
}

func (i *Instance) forgetRestore() error {
	m, err := i.RestoreMark()
	if err != nil || m != nil && !i.restoreDone(m) {
		return err
	}
	if err := i.dropKept(); err != nil {
		return fmt.Errorf("remove the data from before the restore: %w", err)
	}
	if m == nil {
		return nil
	}
	return durable.Remove(i.restoreMarkPath())
}

// HasKept says whether data from before a restore is kept beside.
func (i *Instance) HasKept() bool {
	left, err := filepath.Glob(i.cfg.DataDir + ".before-restore-*")
	return err == nil && len(left) > 0
}

// recoveryConf is what upstream.conf says while the restored directory recovers:
// nobody to stream from, the archive, and where to end.
func (i *Instance) recoveryConf(m *RestoreMark) string {
	var b strings.Builder
	fetch := i.cfg.RestoreCommand
	if m.Stop != 0 {
		fetch = "" // all of it is in pg_wal, and the archive has more
	}
	b.WriteString(upstreamConf("", "", fetch))
	set := func(name, value string) { fmt.Fprintf(&b, "%s = %s\n", name, quote(value)) }
	// Never the latest: timelines may exist that are not on the line to the target.
	set("recovery_target_timeline", fmt.Sprint(m.line()))
	set("recovery_target_action", "pause")
	if c, err := ReadControl(i.cfg.DataDir); err == nil {
		for _, name := range slices.Sorted(maps.Keys(c.Wants)) {
			if c.Wants[name] > i.configured(name) {
				set(name, fmt.Sprint(c.Wants[name])) // replay stops below what the primary had then
			}
		}
	}
	switch o := m.Order; {
	case m.ToEnd || m.Stop != 0 || o.Everything():
	case o.Type == "immediate":
		set("recovery_target", "immediate")
	default:
		set("recovery_target_"+o.Type, o.Target)
		set("recovery_target_inclusive", map[bool]string{true: "off", false: "on"}[o.Exclusive])
	}
	return b.String()
}

// configured is the value of a setting without which replay stops.
func (i *Instance) configured(name string) int {
	n := map[string]int{"max_connections": 100, "max_worker_processes": 8, "max_wal_senders": 10, "max_locks_per_transaction": 64}[name]
	for _, s := range i.defaults() {
		if s.name == name {
			n, _ = strconv.Atoi(s.value)
		}
	}
	for k, v := range i.cfg.Params {
		if strings.EqualFold(k, name) {
			n, _ = strconv.Atoi(v)
		}
	}
	return n
}

// renderRecovery is called before a start: the recovery's settings while there
// is something to recover, and none of them ever after. While the server that
// recovered with them still runs they stay in its file: it ignores them, and
// would call it a pending restart if they went.
func (i *Instance) renderRecovery() error {
	m, err := i.recovering()
	if err != nil {
		return err
	}
	if m != nil {
		if m.Stop != 0 {
			if err := i.endWAL(m); err != nil {
				return err
			}
		}
		return durable.Write(i.run(upstreamFile), []byte(i.recoveryConf(m)), durable.Options{})
	}
	b, err := os.ReadFile(i.run(upstreamFile))
	if err == nil && strings.Contains(string(b), "\nrecovery_target") {
		return i.renderNoUpstream()
	}
	return nil
}

// aboutToPromote is written before a restored directory is promoted.
func (i *Instance) aboutToPromote(ctx context.Context, t cluster.Timeline) error {
	m, err := i.recovering()
	if err != nil || m == nil {
		return err
	}
	v, err := i.value(ctx, "select pg_last_wal_replay_lsn()")
	if err != nil {
		return err
	}
	if err := i.mayBranch(m, lsnOf([]byte(v))); err != nil {
		return err
	}
	m.PromoteTo = t
	return i.writeRestoreMark(m)
}

// replayedTail is the position of a directory that recovers to a target: where
// replay ended, whatever lies in pg_wal beyond it.
func (i *Instance) replayedTail(ctx context.Context, m *RestoreMark) (WALTail, error) {
	r, err := i.query(ctx, "select pg_is_in_recovery(), pg_last_wal_replay_lsn()")
	if err != nil {
		return WALTail{}, err
	}
	if !boolOf(r[0][0][0]) {
		return WALTail{}, errors.New("it is not in recovery")
	}
	at := lsnOf(r[0][0][1])
	return WALTail{End: at, Complete: at, Replayed: at, Timeline: i.timelineAt(m.line(), at)}, nil
}

// unfit names a setting that is lower than the primary's was: replay pauses on
// it as it does at a target. "" when there is none.
func (i *Instance) unfit(ctx context.Context, c *Control) string {
	r, err := i.query(ctx, `select name, setting from pg_settings where name in ('max_connections', 'max_worker_processes',
'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction') order by name`)
	if err != nil {
		return "settings cannot be read: " + err.Error()
	}
	for _, row := range r[0] {
		if name := string(row[0]); int(intOf(row[1])) < c.Wants[name] {
			return fmt.Sprintf("%s = %s, the primary had %d", name, row[1], c.Wants[name])
		}
	}
	return ""
}
