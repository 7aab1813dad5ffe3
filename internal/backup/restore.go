package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"manada/internal/blob"
	"manada/internal/repo"
)

// RestoreType is where recovery ends.
type RestoreType string

// The types of restores, as in pgBackRest's --type.
const (
	RestoreDefault   RestoreType = "default"   // the end of the archive
	RestoreImmediate RestoreType = "immediate" // as soon as consistent
	RestoreTime      RestoreType = "time"
	RestoreLSN       RestoreType = "lsn"
	RestoreXID       RestoreType = "xid"
	RestoreName      RestoreType = "name"    // a restore point
	RestoreNone      RestoreType = "none"    // no recovery settings at all
	RestoreStandby   RestoreType = "standby" // standby.signal
)

// RestoreOptions say what to restore, and to where.
type RestoreOptions struct {
	Storage blob.Storage
	Stanza  string
	Dir     string // the data directory, absolute

	Set             string      // a label; "" or "latest" chooses: the newest that can reach the target
	Type            RestoreType // "" means default
	Target          string      // what time, lsn, xid or name; with a type only
	TargetExclusive bool        // stop just before the target
	TargetAction    string      // pause, promote, shutdown; "" leaves PostgreSQL's default, pause
	TargetTimeline  string      // "" leaves the default; else latest, current or a number

	// Delta keeps files of Dir that are as in the backup, by their content, or by
	// size and time only when Force is set too. Force alone writes all of them
	// anew. Both remove from Dir what is not in the backup.
	Delta bool
	Force bool

	// Others are data directories of this host that must stay as they are, with
	// their tablespaces, whether they run or not. What runs is left alone anyway.
	Others []string
	// RefuseDamaged refuses a backup in which pages are damaged; it is a notice
	// otherwise.
	RefuseDamaged bool
	DryRun        bool // choose, look and refuse, but write nothing

	TablespaceMap    map[string]string // by oid or name, where a tablespace goes
	TablespaceMapAll string            // directory in which all others go, each under its name
	LinkAll          bool              // restore links to where they led; otherwise what they led to goes into Dir

	RestoreCommand  string            // for restore_command; required when there will be recovery
	RecoveryOptions map[string]string // further recovery settings
	ArchiveOff      bool              // archive_mode = off in the restored cluster
	Locked          bool              // the caller's own lock keeps everybody else out of Dir

	Workers  int // files restored at once; 0 means 2
	Progress func(Progress)
	Now      func() time.Time
	Log      *slog.Logger
}

// RestoreResult is what a restore did.
type RestoreResult struct {
	Label    string
	Start    time.Time // when the backup began: recovery starts there
	Stop     time.Time // when it ended: the earliest time that recovery can end at
	Files    int       // in the backup
	Kept     int       // files that a delta found unchanged
	Bytes    int64     // of the database
	Restored int64     // bytes that were written
	Spaces   []RestoredSpace
	Notices  []string
}

// RestoredSpace is where a tablespace went.
type RestoredSpace struct{ Name, From, To string }

func (o *RestoreOptions) defaults() error {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	if o.Type == "" {
		o.Type = RestoreDefault
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if !filepath.IsAbs(o.Dir) || filepath.Clean(o.Dir) == "/" {
		return fail(CodeOption, "", "restore to %q: want the absolute path of a data directory", o.Dir)
	}
	o.Dir = filepath.Clean(o.Dir)
	targeted := false
	switch o.Type {
	case RestoreTime, RestoreLSN, RestoreXID, RestoreName:
		targeted = true
	case RestoreDefault, RestoreImmediate, RestoreNone, RestoreStandby:
	default:
		return fail(CodeOption, "Use default, immediate, time, lsn, xid, name, none or standby.", "restore type %q", o.Type)
	}
	if targeted != (o.Target != "") {
		return fail(CodeOption, "time, lsn, xid and name need a target; the other types have none.", "restore type %s with target %q", o.Type, o.Target)
	}
	if o.Type == RestoreTime {
		t, err := ParseTarget(o.Target, LocalZone())
		if err != nil {
			return err
		}
		o.Target = FormatTarget(t) // the restored server may have another zone
	}
	if o.TargetAction != "" && !slices.Contains([]string{"pause", "promote", "shutdown"}, o.TargetAction) {
		return fail(CodeOption, "Use pause, promote or shutdown.", "target action %q", o.TargetAction)
	}
	if o.Type != RestoreNone && o.RestoreCommand == "" && o.RecoveryOptions["restore_command"] == "" {
		return fail(CodeOption, "", "restore type %s without a restore_command", o.Type)
	}
	return repo.CheckStanza(o.Stanza)
}

// restore is one restore on its way.
type restore struct {
	RestoreOptions
	m      *repo.Manifest
	data   []byte // the manifest as it is kept in Dir meanwhile
	owners *owners
	spaces map[string]string // oid to directory
	links  map[string]string // manifest name of a link to where it leads, tablespaces included
	// linkFile says which of links lead to files.
	linkFile map[string]bool
	tree     *tree
	notes    *notices
	track    *tracker
	over     bool // what is in Dir may be replaced
	kept     int
	wrote    int64
}

// Restore puts a backup into a data directory and sets it up for recovery. The
// directory cannot be started until all of it is there: an interrupted restore
// leaves it without pg_control, and a restore with Delta goes on from there.
func Restore(ctx context.Context, o RestoreOptions) (*RestoreResult, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	r := &restore{RestoreOptions: o, notes: newNotices(o.Log), track: &tracker{report: o.Progress}, over: o.Delta || o.Force, linkFile: map[string]bool{}}
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf("restore stanza %s to %s: %w", o.Stanza, o.Dir, err)
	}
	res := &RestoreResult{Label: r.m.Label, Start: time.Unix(r.m.Start, 0), Stop: time.Unix(r.m.Stop, 0), Files: len(r.m.Files),
		Kept: r.kept, Restored: r.wrote, Notices: r.notes.list}
	for i := range r.m.Files {
		res.Bytes += r.m.Files[i].Size
	}
	for _, t := range r.m.Targets {
		if dir, ok := r.spaces[t.TablespaceID]; ok {
			res.Spaces = append(res.Spaces, RestoredSpace{t.TablespaceName, t.Path, dir})
		}
	}
	r.track.phase(PhaseDone)
	return res, nil
}

func (r *restore) run(ctx context.Context) error {
	r.track.phase(PhasePrepare)
	if err := checkNotRunning(r.Dir); err != nil {
		return err
	}
	if err := r.loadSet(ctx); err != nil {
		return err
	}
	if err := r.mapTargets(); err != nil {
		return err
	}
	if err := r.checkNeighbours(ctx); err != nil {
		return err
	}
	if err := r.checkDirs(); err != nil || r.DryRun {
		return err
	}
	if !r.Locked {
		unlock, err := r.claim()
		if err != nil {
			return err
		}
		defer unlock()
	}
	r.owners = newOwners(r.Dir)
	defer func() {
		if r.tree != nil {
			r.tree.close()
		}
	}()
	if err := r.prepareDirs(); err != nil {
		return err
	}
	if err := r.copyFiles(ctx); err != nil {
		return err
	}
	r.track.phase(PhaseFinish)
	if err := r.writeRecovery(); err != nil {
		return fmt.Errorf("write recovery settings: %w", err)
	}
	return r.finish(ctx)
}

// loadSet chooses the backup and reads its manifest.
func (r *restore) loadSet(ctx context.Context) error {
	info, err := repo.LoadBackupInfo(ctx, r.Storage, r.Stanza)
	if err != nil {
		return missingStanza(r.Stanza, err)
	}
	e, err := r.chooseSet(info)
	if err != nil {
		return err
	}
	if r.m, err = repo.LoadManifest(ctx, r.Storage, r.Stanza, e.Label); err != nil {
		return err
	}
	if err := r.m.Restorable(); err != nil {
		return &Error{Code: CodeFeature, Text: "this backup cannot be restored by this version", Err: err,
			Hint: "pgbackrest 2.46 or later restores it."}
	}
	if err := r.checkPages(); err != nil {
		return err
	}
	// The links of pg_tblspc are made here: with this file PostgreSQL would make
	// them anew at its first start, to where the tablespaces of the original are.
	r.m.Files = slices.DeleteFunc(r.m.Files, func(f repo.File) bool { return f.Name == repo.TargetData+"/tablespace_map" })
	r.data, err = r.m.Render()
	r.notes.log.Info("restoring", "stanza", r.Stanza, "label", r.m.Label, "to", r.Dir)
	return err
}

// checkPages tells of the pages that were damaged when the backup was made.
func (r *restore) checkPages() error {
	n, first := 0, ""
	for i := range r.m.Files {
		if f := &r.m.Files[i]; f.ChecksumPageError {
			if n++; n == 1 {
				first = f.Name
			}
		}
	}
	if n == 0 {
		return nil
	}
	text := fmt.Sprintf("backup %s has damaged pages in %d files, such as %s", r.m.Label, n, first)
	if r.RefuseDamaged {
		return fail(CodeChecksum, "Restore another backup set, or accept it.", "%s", text)
	}
	r.notes.add(text)
	return nil
}

func (r *restore) chooseSet(info *repo.BackupInfo) (*repo.BackupEntry, error) {
	if r.Set != "" && r.Set != "latest" {
		if e := info.Find(r.Set); e != nil {
			return e, nil
		}
		return nil, fail(CodeBackupSet, "Run info to see which there are.", "backup set %s does not exist", r.Set)
	}
	if len(info.Backups) == 0 {
		return nil, fail(CodeBackupSet, "Make a backup first.", "stanza %q has no backups", r.Stanza)
	}
	reaches, err := r.reaches()
	if err != nil {
		return nil, err
	}
	for i := len(info.Backups) - 1; i >= 0; i-- {
		if e := &info.Backups[i]; reaches(e) {
			return e, nil
		}
	}
	return nil, fail(CodeBackupSet, "Choose a target after the end of the oldest backup.",
		"no backup ended before %s %s", r.Type, r.Target)
}

// reaches says which backups recovery to the target can start from, as far as
// that can be told from the target.
func (r *restore) reaches() (func(*repo.BackupEntry) bool, error) {
	switch r.Type {
	case RestoreTime:
		t, err := ParseTarget(r.Target, LocalZone())
		if err != nil {
			return nil, err
		}
		return func(e *repo.BackupEntry) bool { return e.TimeStop < t.Unix() }, nil
	case RestoreLSN:
		want, err := parseLSN(r.Target)
		if err != nil {
			return nil, err
		}
		return func(e *repo.BackupEntry) bool {
			stop, err := parseLSN(e.LSNStop)
			return err == nil && stop <= want
		}, nil
	}
	return func(*repo.BackupEntry) bool { return true }, nil
}

func parseLSN(s string) (uint64, error) {
	var hi, lo uint32
	if n, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); n != 2 || err != nil {
		return 0, fail(CodeOption, "An LSN looks like 0/16B3740.", "target lsn %q", s)
	}
	return uint64(hi)<<32 | uint64(lo), nil
}

// checkNotRunning refuses a directory that a postmaster works in.
func checkNotRunning(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	var pid int
	if n, _ := fmt.Sscan(first, &pid); n == 1 && pid > 0 {
		if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
			return nil // left by a crash
		}
		// Another program may have got the number since.
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && !sameDir(cwd, dir) {
			return nil
		}
	}
	return fail(CodePgRunning, "Stop PostgreSQL. If it is not running, remove postmaster.pid.",
		"PostgreSQL is running in %s (process %s)", dir, first)
}

// claim keeps a second restore out of the directory.
func (r *restore) claim() (func(), error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, err
	}
	d, err := os.Open(r.Dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		return nil, &Error{Code: CodeLock, Text: "another restore works in " + r.Dir, Err: err, Hint: "Wait for it to end."}
	}
	return func() { d.Close() }, nil
}
