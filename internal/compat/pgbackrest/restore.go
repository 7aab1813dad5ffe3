package pgbackrest

import (
	"context"
	"path/filepath"
	"time"

	"manada/internal/backup"
)

const herdHint = "manada restore --herd sets the running herd back; --pg1-path=DIR restores a copy into an empty directory"

// destination is the directory of a copy: one that was typed, and no member's.
func (f *face) destination() (string, error) {
	v := f.values["pg-path"]
	if v == nil {
		return "", fail(codeOptionRequired, herdHint, "restore command requires option: pg1-path")
	}
	if !v.typed {
		return "", fail(backup.CodePgRunning, herdHint, "'%s' is the database of a running herd, which is not restored by one host alone", v.texts[0])
	}
	dir := filepath.Clean(v.texts[0])
	real := dir
	if p, err := filepath.EvalSymlinks(dir); err == nil {
		real = p
	}
	for _, h := range f.herd.Hosts() {
		if real == h.PGData() || dir == h.PGData() {
			return "", fail(backup.CodePgRunning, herdHint, "'%s' is the data directory of host %s of the running herd", dir, h.Node)
		}
	}
	return dir, nil
}

func (f *face) restore(ctx context.Context) error {
	dir, err := f.destination()
	if err != nil {
		return err
	}
	o, err := f.restoreOptions(dir)
	if err != nil {
		return err
	}
	if o.RestoreCommand, err = f.herd.RestoreTarget(dir, o.Type == backup.RestoreStandby); err != nil {
		return err
	}
	r, err := f.herd.Repository()
	if err != nil {
		return err
	}
	o.Storage, o.Others = r.Storage, f.herd.DataDirs()
	if o.Workers == 0 {
		o.Workers = r.Host.Backup.Processes
	}
	res, err := backup.Restore(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			f.log.warn("interrupted: %s cannot be started before a restore with --delta has completed it", dir)
			return exitCode(codeTerm)
		}
		return err
	}
	if err := f.herd.Standalone(dir, res.Label, r.Host.PostgreSQL.Parameters); err != nil {
		return err
	}
	for _, n := range res.Notices {
		f.log.warn("%s", n)
	}
	f.log.info("repo1: restore backup set %s", res.Label)
	f.log.info("restore size = %s, file total = %d", backup.SizeText(res.Bytes), res.Files)
	return nil
}

func (f *face) restoreOptions(dir string) (backup.RestoreOptions, error) {
	if f.text("archive-mode") == "preserve" {
		return backup.RestoreOptions{}, fail(codeOptionInvalid, "leave it out", "option 'archive-mode' with value 'preserve' is not supported by Manada: a copy must not archive into the herd's repository")
	}
	spaces, err := f.pairs("tablespace-map")
	if err != nil {
		return backup.RestoreOptions{}, err
	}
	recovery, err := f.pairs("recovery-option")
	if err != nil {
		return backup.RestoreOptions{}, err
	}
	said := time.Now()
	return backup.RestoreOptions{
		Stanza: f.text("stanza"), Dir: dir, Set: f.text("set"), Type: backup.RestoreType(f.text("type")), Target: f.text("target"),
		TargetExclusive: f.on("target-exclusive"), TargetAction: f.text("target-action"), TargetTimeline: f.text("target-timeline"),
		Delta: f.on("delta"), Force: f.on("force"), TablespaceMap: spaces, TablespaceMapAll: f.text("tablespace-map-all"),
		LinkAll: f.on("link-all"), RefuseDamaged: f.on("checksum-page-error"), RecoveryOptions: recovery, ArchiveOff: true, Workers: f.num("process-max"),
		Progress: func(p backup.Progress) {
			if time.Since(said) > 10*time.Second && p.BytesTotal > 0 {
				said = time.Now()
				f.log.info("restored %s of %s", backup.SizeText(p.BytesDone), backup.SizeText(p.BytesTotal))
			}
		},
	}, nil
}
