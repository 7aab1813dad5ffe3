package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// tailNote describes a bundle in StateDir/lost-and-found.
type tailNote struct {
	Schema   int              `json:"schema"`
	Node     string           `json:"node"`
	From     cluster.LSN      `json:"from"`
	To       cluster.LSN      `json:"to"`
	Timeline cluster.Timeline `json:"timeline"`
	Files    []string         `json:"files"`
	SavedAt  string           `json:"saved_at"`
}

// Rewind turns a stopped, diverged directory into a standby of the source: the
// poison mark first; then the WAL past where it left the line of the term is saved
// to lost-and-found; then pg_rewind (which does crash recovery itself); then our files, a new instance
// id, and the mark is cleared last (finding M10). The source's pg_control is
// looked at before and after (trap T10). Interrupted at any point the mark
// stays; once the directory was altered only Clone can finish (ErrNeedClone).
func (i *Instance) Rewind(ctx context.Context, s Source, t *cluster.Term, progress Progress) error {
	if err := i.alone("rewind", func() error { return i.rewind(ctx, s, t, progress) }); err != nil {
		return fmt.Errorf("rewind from %s: %w", s.Node, err)
	}
	return nil
}

func (i *Instance) rewind(ctx context.Context, s Source, t *cluster.Term, progress Progress) error {
	begun := time.Now()
	if err := i.mustBeDown(ctx); err != nil {
		return err
	}
	p, err := i.Poison()
	if err != nil {
		return err
	}
	if p != nil && (p.Touched || p.What != "rewind") {
		return fmt.Errorf("%w: a %s from %s was interrupted", ErrNeedClone, p.What, p.From)
	}
	if _, err := i.CheckDataDir(""); err != nil {
		return err
	}
	if err := i.mayRewind(); err != nil {
		return err
	}
	control, err := ReadControl(i.cfg.DataDir)
	if err != nil {
		return err
	}
	name := cluster.ServiceName("rewind", i.cfg.Node)
	if err := i.checkSource(ctx, s, name, control.SystemID); err != nil {
		return err
	}
	mark := Poison{What: "rewind", From: s.Node}
	if p != nil {
		mark = *p
	}
	if err := i.setPoison(mark); err != nil {
		return err
	}
	if mark.Tail == "" {
		if mark.Tail, err = i.saveTail(ctx, t); err != nil {
			return err
		}
	}
	mark.Touched = true
	if err := i.setPoison(mark); err != nil {
		return err
	}
	if err := i.updateMarks(func(m *marks) { m.countRewind(s.Epoch) }); err != nil {
		return err
	}
	said, err := i.runRewind(ctx, s, name, progress)
	if err != nil {
		return fmt.Errorf("%w (%w): %s", err, ErrNeedClone, said)
	}
	if err := i.checkSource(ctx, s, name, control.SystemID); err != nil {
		return err
	}
	if err := i.finishRemake(i.cfg.DataDir, s.Epoch); err != nil {
		return err
	}
	if err := durable.Remove(i.restoreMarkPath()); err != nil { // it speaks of the directory that was
		return err
	}
	i.log.Info("rewound", "from", s.Node, "ms", time.Since(begun).Milliseconds())
	i.log.Debug("pg_rewind said", "text", said)
	return i.clearPoison()
}

func (m *marks) countRewind(epoch uint64) {
	if m.RewoundIn != epoch {
		m.Rewound, m.RewoundIn = 0, epoch
	}
	m.Rewound++
}

func (i *Instance) mustBeDown(ctx context.Context) error {
	st, err := i.sup.Status(ctx)
	if err != nil {
		return err
	}
	if st.Running || !st.TreeEmpty {
		return errors.New("postgres still runs: stop it first")
	}
	return nil
}

// runRewind runs pg_rewind. Single-user recovery cannot run as a standby, so
// the signal files go first; the mark keeps anybody from starting meanwhile.
func (i *Instance) runRewind(ctx context.Context, s Source, name string, progress Progress) (said string, err error) {
	for _, f := range []string{"standby.signal", "recovery.signal", "postmaster.pid"} {
		if err := durable.Remove(filepath.Join(i.cfg.DataDir, f)); err != nil {
			return "", err
		}
	}
	i.confMu.Lock()
	_, err = i.render()
	i.confMu.Unlock()
	if err != nil {
		return "", err
	}
	conf := "include " + quote(i.run(confFile)) + "\nsynchronous_standby_names = " + quote(cluster.HoldCommits().String()) +
		"\nprimary_conninfo = ''\nrestore_command = " + quote(i.cfg.RestoreCommand) + "\n"
	if err := durable.Write(i.run("rewind.conf"), []byte(conf), durable.Options{}); err != nil {
		return "", err
	}
	args := []string{"-D", i.cfg.DataDir, "--progress", "--config-file=" + i.run("rewind.conf")}
	if i.cfg.RestoreCommand != "" {
		args = append(args, "--restore-target-wal")
	}
	err = i.withPassfile("rewind", s.Node, cluster.RoleRewind, i.passwordsNow().Rewind, func(pass string) error {
		info, err := i.conninfo(s.Endpoint, cluster.RoleRewind, name, pass)
		if err != nil {
			return err
		}
		args = append(args, "--source-server="+info+" dbname="+cluster.Database+" options='-c search_path=pg_catalog'")
		said, err = runWithProgress(i.program(ctx, "pg_rewind", nil, args...), progress)
		return err
	})
	if err != nil {
		return said, fmt.Errorf("pg_rewind: %w", err)
	}
	return said, nil
}

// finishRemake puts our files into a directory that was rewound or cloned, for
// it came with the source's, and gives it a new identity. What follows is
// started without an upstream, until Follow.
func (i *Instance) finishRemake(dir string, epoch uint64) error {
	if err := writeDataDirConf(dir); err != nil {
		return err
	}
	for _, f := range []string{"postmaster.pid", "postmaster.opts", "recovery.signal"} {
		if err := durable.Remove(filepath.Join(dir, f)); err != nil {
			return err
		}
	}
	if err := durable.Write(filepath.Join(dir, "standby.signal"), nil, durable.Options{}); err != nil {
		return err
	}
	i.confMu.Lock()
	defer i.confMu.Unlock()
	if err := errors.Join(i.removePassfiles(""), i.renderNoUpstream()); err != nil {
		return err
	}
	return i.newInstanceID(dir, func(m *marks) { m.FormerPrimary, m.Served, m.Founded, m.Remade = false, false, false, epoch })
}

// saveTail copies the WAL from the segment where it left the line of the term to
// its end, "" when it did not leave it. Where a crashed directory's WAL ends is
// only known once it was read.
func (i *Instance) saveTail(ctx context.Context, t *cluster.Term) (string, error) {
	end, tl, err := i.WALEnd(ctx)
	if err != nil {
		return "", err
	}
	epoch, _ := t.WALEpoch(tl, end)
	fork := t.Divergence(cluster.Position{Epoch: epoch, LSN: end})
	if end <= fork {
		return "", nil
	}
	control, err := ReadControl(i.cfg.DataDir)
	if err != nil {
		return "", err
	}
	now := time.Now().UTC()
	dir := filepath.Join(i.cfg.StateDir, "lost-and-found", now.Format("20060102T150405.000Z"))
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("save divergent WAL: %w", err)
	}
	note := tailNote{Schema: 1, Node: i.cfg.Node, From: fork, To: end, Timeline: tl, SavedAt: now.Format(time.RFC3339)}
	e, err := os.ReadDir(filepath.Join(i.cfg.DataDir, "pg_wal"))
	if err != nil {
		return "", fmt.Errorf("save divergent WAL: %w", err)
	}
	first, last := uint64(fork)/control.SegmentSize, uint64(end-1)/control.SegmentSize
	for _, f := range e {
		_, seg, ok := cluster.ParseSegment(f.Name(), control.SegmentSize)
		if history := strings.HasSuffix(f.Name(), ".history"); !history && (!ok || seg < first || seg > last) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := durable.Copy(filepath.Join(i.cfg.DataDir, "pg_wal", f.Name()), filepath.Join(dir, f.Name()), durable.Options{}); err != nil {
			return "", fmt.Errorf("save divergent WAL: %w", err)
		}
		note.Files = append(note.Files, f.Name())
	}
	if err := writeJSON(filepath.Join(dir, "tail.json"), note); err != nil {
		return "", err
	}
	if err := i.pruneTails(); err != nil {
		i.log.Warn("old bundles of divergent wal not removed", "error", err.Error())
	}
	i.log.Info("divergent wal saved", "dir", dir, "from", fork.String(), "to", end.String(), "timeline", tl)
	return dir, nil
}

// keepTails is how many bundles of divergent WAL are kept, and keepTailBytes how
// much; of the newest, all: nothing in them was acknowledged (a directory that may
// hold such commits is quarantined, not rewound), and a herd that fails over often
// must not fill its disk.
const (
	keepTails     = 10
	keepTailBytes = 1 << 30
)

func (i *Instance) pruneTails() error {
	all, err := filepath.Glob(filepath.Join(i.cfg.StateDir, "lost-and-found", "*"))
	if err != nil {
		return err
	}
	slices.Reverse(all) // newest first: Glob sorts, the names are times
	var errs []error
	total := int64(0)
	for n, dir := range all {
		total += sizeOf(dir)
		if n > 0 && (n >= keepTails || total > keepTailBytes) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// sizeOf is how much the files of a folder hold, in bytes.
func sizeOf(dir string) int64 {
	files, _ := os.ReadDir(dir)
	n := int64(0)
	for _, f := range files {
		if st, err := f.Info(); err == nil {
			n += st.Size()
		}
	}
	return n
}
