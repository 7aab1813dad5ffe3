package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/backup"
	"manada/internal/process"
	"manada/internal/verb"
)

// backupJob is a backup under way or the last one that ended, as the primary's
// agent tells it: POST /v1/backup {"type"} starts one and answers it, GET
// /v1/backup tells of it.
type backupJob = process.Job

func (a *app) backupCmd() *cobra.Command {
	var kind string
	var damage bool
	c := &cobra.Command{
		Use:   "backup",
		Short: "Back up the herd now",
		Long: `Back up the herd now, into its repository, in pgBackRest's format: full, what
changed since the last full one (diff), or since the last backup (incr). Without
a full one to build on, a full one is made. Interrupting the command does not
end the backup. One that finds damaged pages is kept, and the newest one without
too; the command then fails, unless --checksum-page-error=false accepts it.` + exits(exitFailed, exitUsage, exitNoPrimary, exitUnknown),
		Example: "  manada backup --type full\n  manada backup --type incr",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if kind != "full" && kind != "diff" && kind != "incr" {
				return usage("--type full, --type diff or --type incr", "unknown type of backup %q", kind)
			}
			q := process.BackupRequest{Type: kind}
			if c.Flags().Changed("checksum-page-error") {
				q.Options = &process.BackupOptions{ChecksumPageError: &damage}
			}
			return a.backup(c.Context(), q)
		},
	}
	c.Flags().StringVarP(&kind, "type", "t", "incr", "`TYPE`: full, diff or incr")
	c.Flags().BoolVar(&damage, "checksum-page-error", true, "fail when pages are damaged; the backup is kept; default: backup.checksum_page_error")
	a.outputFlag(c)
	return c
}

func (a *app) backup(ctx context.Context, q process.BackupRequest) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	var job backupJob
	if err := c.write(ctx, verb.StartBackup, q, &job); err != nil {
		return err
	}
	p := a.newProgress("backup")
	for job.State == "running" {
		p.show(job.Phase, job.BytesDone, job.BytesTotal)
		select {
		case <-ctx.Done():
			p.end()
			return fail(exitInterrupted, "manada backups  shows it when it is done", "interrupted; the backup on %s goes on", job.Node)
		case <-time.After(200 * time.Millisecond):
		}
		now, _, err := read[backupJob](ctx, c, verb.Backup, 2*time.Second)
		if err == nil && now.ID == job.ID {
			job = now
		} else if err == nil {
			p.end()
			return fail(exitUnknown, "manada backups", "the backup on %s is not known any more", job.Node)
		}
	}
	p.end()
	return a.tellBackup(job)
}

func (a *app) tellBackup(job backupJob) error {
	if job.State != "done" {
		return fail(exitFailed, job.Hint, "%s backup on %s: %s", job.Type, job.Node, job.Error)
	}
	failed := error(nil)
	if job.Damaged > 0 && !job.DamageAccepted {
		failed = fail(exitFailed, "manada status  names the newest clean backup, which is kept; --checksum-page-error=false accepts it",
			"backup %s was made, but %s", job.Label, job.DamagedPages())
	}
	if a.output == "json" {
		return errors.Join(json.NewEncoder(a.out).Encode(job), failed)
	}
	for _, n := range job.Notices {
		a.say("note: %s", n)
	}
	took := ""
	if job.Stop != nil {
		took = fmt.Sprintf(" in %.1f s", job.Stop.Sub(job.Start).Seconds())
	}
	a.print("%s: %s backup of %s, %s copied, %s in the repository%s", job.Label, job.Type, bytesText(job.Size), bytesText(job.Copied), bytesText(job.RepoSize), took)
	return failed
}

func (a *app) backupsCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "backups",
		Short: "List the backups and how far back one can restore",
		Long: `List the backups in the repository, the oldest first, with their sizes in the
database and in the repository, and the WAL archive.` + exits(exitFailed, exitUsage),
		Example: "  manada backups\n  manada backups -o json",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.backups(c.Context()) },
	}
	a.outputFlag(c)
	c.AddCommand(a.backupsExportCmd(), a.backupsSetAsideCmd())
	return c
}

func (a *app) backups(ctx context.Context) error {
	c, err := a.openToRead()
	if err != nil {
		return err
	}
	r, err := c.openRepository()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	info, err := backup.GetInfo(ctx, backup.InfoOptions{Storage: r.storage, Stanza: r.cfg.Backup.Stanza})
	if err == nil {
		err = info.Unread()
	}
	if err != nil {
		return backupFailure(err)
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "repository": r.where, "stanzas": info})
	}
	for _, s := range info {
		if err := a.printStanza(s); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printStanza(s backup.StanzaInfo) error {
	a.print("stanza %s: %s", s.Name, s.Status.Message)
	for _, w := range s.Archive {
		if w.Min != nil && w.Max != nil {
			a.print("WAL archive %s: %s to %s", w.ID, *w.Min, *w.Max)
		}
	}
	if len(s.Backup) == 0 {
		return nil
	}
	a.print("")
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "LABEL\tTYPE\tENDED\tTOOK\tDATABASE\tCOPIED\tIN REPOSITORY\t")
	for _, b := range s.Backup {
		stop := time.Unix(b.Timestamp.Stop, 0).UTC()
		bad := ""
		if b.Error != nil && *b.Error {
			bad = "! page checksum errors"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Label, b.Type, stop.Format("2006-01-02 15:04:05Z"),
			time.Duration(b.Timestamp.Stop-b.Timestamp.Start)*time.Second, bytesText(b.Info.Size), bytesText(b.Info.Delta), bytesText(b.Info.Repository.Delta), bad)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	first := time.Unix(s.Backup[0].Timestamp.Stop, 0).UTC()
	a.print("\nRestorable from %s on, to the newest archived WAL.", first.Format("2006-01-02 15:04:05Z"))
	return nil
}

// bytesText writes a size for people, in powers of 1000 as `status` does.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1000 && unit < 4 {
		f /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %s", f, []string{"B", "kB", "MB", "GB", "TB"}[unit])
}
