package pgbackrest

import (
	"context"
	"time"

	"manada/internal/backup"
	"manada/internal/process"
	"manada/internal/verb"
)

// request is what the primary is asked for.
func (f *face) request() (process.BackupRequest, error) {
	q := process.BackupRequest{Type: f.text("type")}
	if q.Type == "" {
		q.Type = "incr"
	}
	if f.on("force") {
		f.log.warn("option 'force' has no effect: backups are made of a running primary")
	}
	notes, err := f.pairs("annotation")
	o := &process.BackupOptions{Annotations: notes, Processes: f.num("process-max"), Compress: f.text("compress-type"),
		CompressLevel: f.num("compress-level"), Delta: f.on("delta"),
		RetentionFull: f.num("repo-retention-full"), RetentionDiff: f.num("repo-retention-diff"), RetentionArchive: f.num("repo-retention-archive")}
	if f.text("compress") == "n" {
		o.Compress = "none"
	}
	if v := f.text("start-fast"); v != "" {
		fast := v == "y"
		o.StartFast = &fast
	}
	if v := f.text("checksum-page-error"); v != "" {
		fatal := v == "y"
		o.ChecksumPageError = &fatal
	}
	if v := f.text("archive-timeout"); v != "" {
		d, _ := seconds(v) // judged already
		o.ArchiveTimeoutMS = d.Milliseconds()
	}
	q.Options = o
	return q, err
}

// backup has the primary make a backup and follows it.
func (f *face) backup(ctx context.Context) error {
	q, err := f.request()
	if err != nil {
		return err
	}
	var job process.Job
	if err := f.herd.Write(ctx, verb.StartBackup, q, &job); err != nil {
		return err
	}
	f.log.info("execute non-exclusive backup start on %s", job.Node)
	if job, err = f.follow(ctx, job); err != nil {
		return err
	}
	if job.State != "done" {
		code := job.Code
		if code == 0 {
			code = codeUnhandled
		}
		return fail(code, job.Hint, "%s backup on %s: %s", job.Type, job.Node, job.Error)
	}
	for _, n := range job.Notices {
		f.log.warn("%s", n)
	}
	if q.Type != job.Type {
		f.log.warn("no prior backup exists, %s backup has been changed to %s", q.Type, job.Type)
	}
	f.log.info("backup start archive = %s, lsn = %s", job.WALStart, job.LSNStart)
	f.log.info("backup stop archive = %s, lsn = %s", job.WALStop, job.LSNStop)
	f.log.info("check archive for segment(s) %s:%s", job.WALStart, job.WALStop)
	f.log.info("new backup label = %s", job.Label)
	f.log.info("%s backup size = %s, file total = %d", job.Type, backup.SizeText(job.Copied), job.Files)
	f.expired(job.Expired)
	if job.Damaged > 0 && !job.DamageAccepted {
		return fail(backup.CodeChecksum, "the newest backup without is kept; --no-checksum-page-error accepts it.", "backup %s was made, but %s", job.Label, job.DamagedPages())
	}
	return nil
}

// follow waits for the end of the job. The log gets a line whenever the phase
// changes and every ten seconds.
func (f *face) follow(ctx context.Context, job process.Job) (process.Job, error) {
	phase, said := "", time.Now()
	lost := time.Now()
	for job.State == "running" {
		if job.Phase != phase || time.Since(said) > 10*time.Second {
			phase, said = job.Phase, time.Now()
			if job.BytesTotal > 0 {
				f.log.info("backup phase %s (%s of %s, %d%%)", phase, backup.SizeText(job.BytesDone), backup.SizeText(job.BytesTotal), 100*job.BytesDone/job.BytesTotal)
			} else {
				f.log.info("backup phase %s", phase)
			}
		}
		select {
		case <-ctx.Done():
			f.log.warn("interrupted: the backup on %s goes on, and info shows it when it is done", job.Node)
			return job, exitCode(codeTerm)
		case <-time.After(200 * time.Millisecond):
		}
		var now process.Job
		err := f.herd.Read(ctx, verb.Backup, &now)
		switch {
		case err == nil && now.ID == job.ID:
			job, lost = now, time.Now()
		case err == nil, time.Since(lost) > time.Minute:
			return job, fail(codeUnhandled, "info shows whether it was completed", "the backup on %s is not known any more", job.Node)
		}
	}
	return job, nil
}
