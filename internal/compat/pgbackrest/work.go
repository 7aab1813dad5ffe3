package pgbackrest

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/process"
	"manada/internal/verb"
)

func (f *face) stanzaCreate(ctx context.Context) error {
	f.log.info("stanza-create for stanza '%s' on repo1", f.text("stanza"))
	r, err := f.herd.Repository()
	if err != nil {
		return err
	}
	before, err := backup.GetInfo(ctx, backup.InfoOptions{Storage: r.Storage, Stanza: f.text("stanza")})
	if err != nil {
		return err
	}
	var answer map[string]string
	if err := f.herd.Write(ctx, verb.Stanza, struct{}{}, &answer); err != nil {
		return err
	}
	if len(before) == 1 && len(before[0].DB) > 0 {
		f.log.info("stanza '%s' already exists on repo1 and is valid", f.text("stanza"))
	}
	return nil
}

// check: the repository can be reached, the stanza fits, and a segment that the
// primary finishes now gets into the archive.
func (f *face) check(ctx context.Context) error {
	f.log.info("check repo1 configuration (primary)")
	r, err := f.herd.Repository()
	if err != nil {
		return err
	}
	var answer map[string]string
	if err := f.herd.Write(ctx, verb.Stanza, struct{}{}, &answer); err != nil {
		return err
	}
	var s process.Switched
	f.log.info("check repo1 archive for WAL (primary)")
	if err := f.herd.Write(ctx, verb.ArchiveCheck, struct{}{}, &s); err != nil {
		return err
	}
	limit := time.Minute
	if v := f.text("archive-timeout"); v != "" {
		limit, _ = seconds(v) // judged already
	}
	late, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		where, err := backup.FindWAL(ctx, r.Storage, f.text("stanza"), s.WAL)
		if err != nil {
			return err
		}
		if where != "" {
			f.log.info("WAL segment %s successfully archived to '%s' on repo1", s.WAL, filepath.Join(r.Where, where))
			return nil
		}
		select {
		case <-late.Done():
			if ctx.Err() != nil {
				return exitCode(codeTerm)
			}
			return fail(backup.CodeArchiveTimeout, "manada status says why; the log of PostgreSQL on "+s.Node+" has the errors of archive_command",
				"WAL segment %s was not archived before the %dms timeout", s.WAL, limit.Milliseconds())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *face) info(ctx context.Context) error {
	o := backup.InfoOptions{Stanza: f.text("stanza"), Set: f.text("set")}
	if path := f.elsewhere(); path != "" {
		s, err := blob.NewPosix(path, blob.PosixOptions{})
		if err != nil {
			return err
		}
		o.Storage = s
	} else {
		r, err := f.herd.Repository()
		if err != nil {
			return err
		}
		var job process.Job
		o.Storage, o.BackupRunning = r.Storage, f.herd.Read(ctx, verb.Backup, &job) == nil && job.State == "running"
	}
	info, err := backup.GetInfo(ctx, o)
	if err != nil {
		return err
	}
	if kind := f.text("type"); kind != "" {
		info.Only(kind)
	}
	if f.text("output") == "json" {
		b, err := info.JSON()
		if err != nil {
			return err
		}
		_, err = f.out.Write(b)
		return err
	}
	_, err = fmt.Fprint(f.out, info.Text(time.Local))
	return err
}

func (f *face) expire(ctx context.Context) error {
	if f.text("set") != "" {
		return fail(codeOptionInvalid, "backups expire by the retention", "option 'set' of expire is not supported by Manada")
	}
	r, err := f.herd.Repository()
	if err != nil {
		return err
	}
	b := r.Host.Backup
	keep := backup.Retention{Full: b.RetentionFull, Diff: b.RetentionDiff, Archive: b.RetentionArchive}
	for name, n := range map[string]*int{"repo-retention-full": &keep.Full, "repo-retention-diff": &keep.Diff, "repo-retention-archive": &keep.Archive} {
		if v := f.num(name); v > 0 {
			*n = v
		}
	}
	gone, err := backup.Expire(ctx, r.Storage, f.text("stanza"), keep, nil)
	if err != nil {
		return err
	}
	f.expired(gone.Backups)
	for _, w := range gone.WAL {
		f.log.info("repo1: %s remove archive, start = %s, stop = %s", w.ArchiveID, w.First, w.Last)
	}
	for _, n := range gone.Notices {
		f.log.warn("%s", n)
	}
	return nil
}

func (f *face) expired(labels []string) {
	for _, l := range labels {
		f.log.info("repo1: remove expired backup %s", l)
	}
}

func (f *face) archivePush(ctx context.Context) error {
	if len(f.params) == 0 {
		return fail(codeParamRequired, "", "WAL segment to push required")
	}
	if len(f.params) > 1 {
		return fail(codeParamInvalid, "", "too many parameters")
	}
	path, err := filepath.Abs(f.params[0])
	if err != nil {
		return err
	}
	if err := f.herd.ArchivePush(ctx, path); err != nil {
		return err
	}
	f.log.info("pushed WAL file '%s' to the archive", filepath.Base(path))
	return nil
}

func (f *face) archiveGet(ctx context.Context) error {
	switch {
	case len(f.params) == 0:
		return fail(codeParamRequired, "", "WAL segment to get required")
	case len(f.params) == 1:
		return fail(codeParamRequired, "", "path to copy WAL segment required")
	case len(f.params) > 2:
		return fail(codeParamInvalid, "", "too many parameters")
	}
	dest, err := filepath.Abs(f.params[1])
	if err != nil {
		return err
	}
	found, err := f.herd.ArchiveGet(ctx, f.params[0], dest)
	if err != nil {
		return err
	}
	if !found {
		f.log.info("unable to find %s in the archive", f.params[0])
		return exitCode(1)
	}
	f.log.info("found %s in the archive", f.params[0])
	return nil
}
