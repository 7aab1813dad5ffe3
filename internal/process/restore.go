package process

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"manada/internal/agent"
	"manada/internal/backup"
	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/postgres"
	"manada/internal/verb"
)

// PlanRequest asks what a restore of the herd would do: POST /v1/restore/plan.
type PlanRequest struct {
	Type      string           `json:"type"`
	Target    string           `json:"target"`
	Exclusive bool             `json:"exclusive"`
	Timeline  cluster.Timeline `json:"timeline"` // 0: the herd's
	Set       string           `json:"set"`
	KeepOld   bool             `json:"keep_old"`
}

// RestorePlan is what it would do, as the primary's agent says.
type RestorePlan struct {
	agent.RestoreVerb
	Node     string    `json:"node"` // whose data is replaced
	Standbys []string  `json:"standbys"`
	Kind     string    `json:"backup_type"`
	Stop     time.Time `json:"backup_stop"`
	Size     int64     `json:"size_bytes"`
	Read     int64     `json:"read_bytes"` // of the repository
	Segments int       `json:"wal_segments"`
	WALBytes int64     `json:"wal_bytes"`
	Need     int64     `json:"need_bytes"`
	Free     int64     `json:"free_bytes"`
	// Seconds is an estimate; From says what it rests on.
	Seconds int64  `json:"estimate_s"`
	From    string `json:"estimate_from"`
	// Undone says what of what was committed will be gone; empty: nothing.
	Undone   []string `json:"undone"`
	Warnings []string `json:"warnings"`
}

// Restore implements agent.Repository.
func (r *repository) Restore(ctx context.Context, label, dir string, progress func(done, total int64)) error {
	s, err := r.open()
	if err != nil {
		return err
	}
	res, err := backup.Restore(ctx, backup.RestoreOptions{
		Storage: s, Stanza: r.cfg.Backup.Stanza, Dir: dir, Set: label, Type: backup.RestoreNone, Delta: true,
		Locked:  true, // by the guardian, and one long operation at a time
		Workers: r.cfg.Backup.Processes, Log: r.log,
		Progress: func(p backup.Progress) { progress(p.BytesDone, p.BytesTotal) },
	})
	if err == nil {
		r.log.Info("backup restored", "label", res.Label, "files", res.Files, "kept", res.Kept, "bytes", res.Bytes, "written", res.Restored)
	}
	return err
}

// postPlan answers POST /v1/restore/plan: the primary's host knows its disk.
func (h *hostAgent) postPlan(w http.ResponseWriter, r *http.Request) {
	var q PlanRequest
	if !peer.Take(w, r, &q) {
		return
	}
	st, t := h.agent.Status(), h.agent.Term()
	switch {
	case t != nil && t.Restore != nil:
		peer.WriteError(w, peer.Refuse(http.StatusConflict, "restoring", "manada restore --herd --resume  shows how far it is, --undo ends it",
			"the herd is being restored to %s", t.Restore.To()))
	case st.Primary == "" || t == nil:
		peer.WriteError(w, peer.Refuse(http.StatusConflict, "no_primary", "manada status", "there is no primary: a restore begins with a herd that has one"))
	case st.Primary != h.cfg.Node:
		addr, ok := h.agent.PeerAddr(st.Primary)
		if !ok {
			peer.WriteError(w, peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "manada status", "the address of %s is not known", st.Primary))
			return
		}
		var p RestorePlan
		if err := (&peer.Client{TLS: h.id.TLSFor}).Call(r.Context(), addr, st.Primary, verb.Plan, q, &p); err != nil {
			peer.WriteError(w, err)
			return
		}
		peer.WriteJSON(w, p)
	default:
		p, err := h.plan(r.Context(), st, t, q)
		if err != nil {
			peer.WriteError(w, planError(err))
			return
		}
		peer.WriteJSON(w, p)
	}
}

// planError makes a refusal of what the engine says.
func planError(err error) error {
	if e, ok := errors.AsType[*backup.Error](err); ok {
		text := strings.Replace(err.Error(), "\nHINT: "+e.Hint, "", 1)
		code := "cannot_restore"
		if e.Code == backup.CodeOption {
			code = peer.CodeBadRequest
		}
		return peer.Refuse(http.StatusConflict, code, strings.ReplaceAll(e.Hint, "\n", " "), "%s", text)
	}
	return err
}

func (h *hostAgent) plan(ctx context.Context, st cluster.Status, t *cluster.Term, q PlanRequest) (*RestorePlan, error) {
	s, err := h.repo.open()
	if err != nil {
		return nil, peer.Refuse(http.StatusConflict, "no_repository", "give one host of the herd the role repository", "%v", err)
	}
	control, err := postgres.ReadControl(h.cfg.PGData())
	if err != nil {
		return nil, err
	}
	live := t.Current().Timeline
	if q.Timeline == 0 {
		q.Timeline = live
	}
	line := t.Line(q.Timeline)
	if line == nil {
		return nil, peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, "manada history", "the herd never had a timeline %d", q.Timeline)
	}
	if q.Type == cluster.RestoreDefault && q.Timeline != live {
		return nil, peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, "add a target, such as --target-time",
			"timeline %d is not the herd's (%d): going back to it wants a target", q.Timeline, live)
	}
	if err := h.checkTarget(q); err != nil {
		return nil, err
	}
	o := backup.PlanOptions{Storage: s, Stanza: h.cfg.Backup.Stanza, Set: q.Set, Type: backup.RestoreType(q.Type), Target: q.Target,
		SegmentSize: control.SegmentSize, Now: time.Now()}
	for _, x := range line {
		o.Line = append(o.Line, backup.Stretch{Timeline: uint32(x.Timeline), End: uint64(x.End)})
	}
	b, err := backup.PlanRestore(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &RestorePlan{Standbys: []string{}, Undone: []string{}, Warnings: []string{}, Node: h.cfg.Node, Kind: b.Kind, Stop: b.Stop, Size: b.Size, Read: b.RepoSize, Segments: b.Segments,
		WALBytes: int64(b.Segments) * int64(control.SegmentSize)}
	p.Epoch = t.Epoch
	p.Order = cluster.Restore{Type: q.Type, Target: q.Target, Exclusive: q.Exclusive, Timeline: q.Timeline, Set: b.Label, KeepOld: q.KeepOld}
	p.surroundings(st, t, b)
	p.estimate(b)
	p.undone(t, q, h.agent.Self().WAL.LSN)
	return p, h.checkRoom(p, b)
}

// surroundings are the others, and what is unusual.
func (p *RestorePlan) surroundings(st cluster.Status, t *cluster.Term, b *backup.Plan) {
	for _, n := range st.Nodes {
		if n.Role == cluster.RoleStandby {
			p.Standbys = append(p.Standbys, n.Name)
		}
	}
	if b.Damaged {
		p.Warnings = append(p.Warnings, "backup "+p.Order.Set+" has damaged pages; manada backups lists those without")
	}
	if b.Gap != "" {
		p.Warnings = append(p.Warnings, "the archive lacks WAL segment "+b.Gap+": a target behind it cannot be reached")
	}
	if t.K == 0 && !p.Order.KeepOld {
		p.Warnings = append(p.Warnings, "no standby has what "+p.Node+" has (k = 0): once its data is being replaced the restore can be resumed, not undone; --keep-old makes it possible")
	}
}

// checkTarget refuses what lies past everything there is, where that is known.
func (h *hostAgent) checkTarget(q PlanRequest) error {
	bad := func(hint, format string, args ...any) error {
		return peer.Refuse(http.StatusBadRequest, peer.CodeBadRequest, hint, format, args...)
	}
	targeted := q.Type == "time" || q.Type == "lsn" || q.Type == "xid" || q.Type == "name"
	if !targeted && q.Type != cluster.RestoreDefault && q.Type != "immediate" {
		return bad("default, immediate, time, lsn, xid or name", "a herd is not restored with type %q", q.Type)
	}
	if targeted != (q.Target != "") {
		return bad("time, lsn, xid and name want a target, the others have none", "restore type %s with target %q", q.Type, q.Target)
	}
	switch q.Type {
	case "time":
		if at, err := backup.ParseTarget(q.Target, time.UTC); err == nil && at.After(time.Now()) {
			return bad("leave the target out to restore everything", "%s lies in the future", q.Target)
		}
	case "lsn":
		if end := h.agent.Self().WAL.LSN; end != 0 {
			if l, err := cluster.ParseLSN(q.Target); err == nil && l > end {
				return bad("leave the target out to restore everything", "LSN %s lies past the end of the WAL, %s", q.Target, end)
			}
		}
	}
	return nil
}

// estimate: copying as fast as the backup was made, WAL at a rate that is a guess.
func (p *RestorePlan) estimate(b *backup.Plan) {
	const walRate = 50 << 20
	rate := max(b.Size/int64(b.Took/time.Second), 20<<20)
	p.Seconds = 5 + b.Size/rate + p.WALBytes/walRate
	p.From = fmt.Sprintf("the data at %d MB/s, as the backup was made or at least 20, WAL at a guessed 50 MB/s, 5 s to stop and start", rate/1_000_000)
}

func (p *RestorePlan) undone(t *cluster.Term, q PlanRequest, end cluster.LSN) {
	add := func(format string, args ...any) { p.Undone = append(p.Undone, fmt.Sprintf(format, args...)) }
	if live := t.Current(); q.Timeline != live.Timeline {
		add("everything that was committed on timeline %d (epoch %d) and is not on timeline %d", live.Timeline, live.Epoch, q.Timeline)
	}
	switch q.Type {
	case "time":
		if at, err := backup.ParseTarget(q.Target, time.UTC); err == nil {
			add("everything committed after %s: the last %s", at.UTC().Format("2006-01-02 15:04:05.999Z07:00"), time.Since(at).Round(time.Second))
			return
		}
		add("everything committed after %s", q.Target)
	case "lsn":
		add("everything committed after WAL position %s; the end is at %s now", q.Target, end)
	case "xid", "name":
		add("everything committed after %s %s", q.Type, q.Target)
	case "immediate":
		add("everything committed after the end of backup %s (%s): the last %s", p.Order.Set, p.Stop.Format("2006-01-02 15:04:05Z"), time.Since(p.Stop).Round(time.Second))
	}
}

// checkRoom refuses what would fill the disk, with the figures.
func (h *hostAgent) checkRoom(p *RestorePlan, b *backup.Plan) error {
	dir := h.cfg.PGData()
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(dir), &st); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	p.Free = int64(st.Bavail) * st.Bsize
	p.Need = b.Size + min(p.WALBytes, 2<<30) + 64<<20
	refuse := func(hint, format string, args ...any) error {
		return peer.Refuse(http.StatusConflict, "no_room", hint, format, args...)
	}
	if !p.Order.KeepOld {
		p.Need = max(0, p.Need-treeSize(dir))
		if p.Free < p.Need {
			return refuse("make room on "+h.cfg.Node, "the restored data needs %d MB more than what stands there, %s has %d MB free", p.Need/1_000_000, dir, p.Free/1_000_000)
		}
		return nil
	}
	spaces, err := os.ReadDir(filepath.Join(dir, "pg_tblspc"))
	switch {
	case err == nil && len(spaces) > 0:
		return refuse("leave out --keep-old", "--keep-old cannot keep tablespaces: %s has %d", h.cfg.Node, len(spaces))
	case mounted(dir):
		return refuse("leave out --keep-old, or use a folder in it as postgres.data_dir", "--keep-old moves the data aside, and %s is a mount point", dir)
	case p.Free < p.Need:
		return refuse("leave out --keep-old, or make room on "+h.cfg.Node, "--keep-old needs %d MB beside the old data, %s has %d MB free",
			p.Need/1_000_000, filepath.Dir(dir), p.Free/1_000_000)
	}
	return nil
}

// mounted says whether a directory is a mount point: it cannot be renamed.
func mounted(dir string) bool {
	var in, above syscall.Stat_t
	return syscall.Stat(dir, &in) == nil && syscall.Stat(filepath.Dir(dir), &above) == nil && in.Dev != above.Dev
}

// treeSize is what the files below a directory take.
func treeSize(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go under a running server
		}
		if i, err := d.Info(); err == nil {
			n += i.Size()
		}
		return nil
	})
	return n
}
