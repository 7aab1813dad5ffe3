package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/health"
	"manada/internal/peer"
	"manada/internal/schedule"
	"manada/internal/verb"
)

// scheduleFile is in the repository, so that every host can tell of it and a new
// repository host goes on with it. pgBackRest does not look there.
const scheduleFile = "manada/schedule.json"

func loadRecord(ctx context.Context, s blob.Storage) (schedule.Record, error) {
	var rec schedule.Record
	b, err := blob.Get(ctx, s, scheduleFile)
	if errors.Is(err, blob.ErrNotExist) {
		return rec, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	return rec, err
}

// keepSchedule has backups made at their times. The repository host does it: it
// is there without a primary, and there is one of it.
func (h *hostAgent) keepSchedule(ctx context.Context) error {
	if !h.cfg.Has(config.Repository) {
		return nil
	}
	plan, err := schedule.Parse(h.cfg.Backup.Schedule)
	if err != nil {
		return err
	}
	s, err := h.repo.open()
	if err != nil {
		return err
	}
	r := schedule.Runner{
		Plan: plan, Back: h.scheduledBackup, Now: time.Now,
		Load: func(ctx context.Context) (schedule.Record, error) { return loadRecord(ctx, s) },
		Save: func(ctx context.Context, rec schedule.Record) error {
			b, err := json.Marshal(rec)
			if err != nil {
				return err
			}
			return s.Put(ctx, scheduleFile, bytes.NewReader(append(b, '\n')), blob.PutOptions{})
		},
		Tell: func(what string, err error) { h.log.Error(what, "error", err.Error()) },
		Wait: func(ctx context.Context, d time.Duration) {
			select {
			case <-ctx.Done():
			case <-time.After(d):
			}
		},
	}
	r.Run(ctx)
	return nil
}

// scheduledBackup makes one backup on the primary and waits for its end.
func (h *hostAgent) scheduledBackup(ctx context.Context, t schedule.Tick) error {
	if made, err := h.madeSince(ctx, t); err != nil || made {
		return err
	}
	kind := t.Kind
	j, err := h.askBackup(ctx, BackupRequest{Type: kind})
	if err != nil {
		h.log.Warn("a scheduled backup has to wait", "type", kind, "error", err.Error())
		return fmt.Errorf("%w: %w", err, schedule.ErrLater)
	}
	h.log.Info("scheduled backup begun", "type", kind, "on", j.Node)
	heard := time.Now()
	for j.State == "running" {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		now, err := h.jobOn(ctx, j.Node)
		switch {
		case err == nil && now.ID == j.ID:
			j, heard = now, time.Now()
		case err == nil, time.Since(heard) > time.Minute:
			return fmt.Errorf("the backup on %s is not known any more: %w", j.Node, schedule.ErrLater)
		}
	}
	if j.State != "done" {
		return fmt.Errorf("failed on %s: %s", j.Node, j.Error)
	}
	return nil
}

// madeSince says whether there is a backup already, as when this process was
// restarted while it waited for its end.
func (h *hostAgent) madeSince(ctx context.Context, t schedule.Tick) (bool, error) {
	s, err := h.repo.open()
	if err != nil {
		return false, err
	}
	info, err := backup.GetInfo(ctx, backup.InfoOptions{Storage: s, Stanza: h.cfg.Backup.Stanza})
	if err == nil {
		err = info.Unread()
	}
	return err == nil && covered(info, t), err
}

// covered looks for a backup that was begun at a time or later.
func covered(info backup.Info, t schedule.Tick) bool {
	for i := range info {
		for _, x := range info[i].Backup {
			if schedule.Covers(string(x.Type), t.Kind) && x.Timestamp.Start >= t.At.Unix() {
				return true
			}
		}
	}
	return false
}

// jobOn is the backup that runs or ran last on a host.
func (h *hostAgent) jobOn(ctx context.Context, node string) (*Job, error) {
	if node == h.cfg.Node {
		if j := h.jobs.get(); j != nil {
			return j, nil
		}
		return &Job{}, nil
	}
	addr, ok := h.agent.PeerAddr(node)
	if !ok {
		return nil, fmt.Errorf("the address of %s is not known", node)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var j Job
	c := peer.Client{TLS: h.id.TLSFor}
	return &j, c.Call(ctx, addr, node, verb.Backup, nil, &j)
}

// addSchedule tells of the schedule in the status. A backup by hand makes up for
// one that was missed.
func (r *repository) addSchedule(ctx context.Context, s blob.Storage, info backup.Info, b *health.Backup) {
	rec, err := loadRecord(ctx, s)
	if err != nil {
		r.log.Debug("the record of the schedule cannot be read", "error", err.Error())
		return
	}
	if rec.Next != nil {
		b.Next = &cluster.NextBackup{Type: rec.Next.Kind, At: rec.Next.At.UTC()}
	}
	if rec.Missed != nil && !covered(info, rec.Missed.Tick) {
		b.Missed = rec.Missed.Text()
	}
}
