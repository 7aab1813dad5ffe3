package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"manada/internal/backup"
)

func (a *app) verifyCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "verify [LABEL]",
		Short: "Read the backups and the archive, and compare their checksums",
		Long: `Read everything in the repository that a restore would read, all backups and the
archived WAL, or one backup with what it builds on and the WAL that makes it
consistent, and compare it with the checksums that were taken when it was
written. Nothing is changed, and the database is not touched.` + exits(exitFailed, exitUsage, exitDegraded) + `

  Degraded: something is missing or damaged; it is listed.`,
		Example: "  manada verify\n  manada verify 20261122-030000F -o json",
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			label := ""
			if len(args) == 1 {
				label = args[0]
			}
			return a.verify(c.Context(), label)
		},
	}
	a.outputFlag(c)
	return c
}

func (a *app) verify(ctx context.Context, label string) error {
	_, r, err := a.openRepository()
	if err != nil {
		return err
	}
	var res *backup.VerifyResult
	err = a.follow(ctx, "verify", func(p *progress) (err error) {
		res, err = backup.Verify(ctx, backup.VerifyOptions{
			Storage: r.storage, Stanza: r.cfg.Backup.Stanza, Set: label, Workers: r.cfg.Backup.Processes,
			Progress: func(x backup.Progress) { p.draw(fmt.Sprintf("%s, %s", bytesText(x.BytesDone), x.File), 0) },
		})
		return err
	}, func() error { return fail(exitInterrupted, "", "interrupted") })
	if err != nil {
		return err
	}
	bad := error(nil)
	if n := len(res.Problems); n > 0 {
		bad = fail(exitDegraded, "take a new one:  manada backup --type full ; what is damaged is of no use for a restore", "%d problems found in the repository %s", n, r.where)
	}
	if a.output == "json" {
		return errors.Join(json.NewEncoder(a.out).Encode(verifyJSON(r.where, res)), bad)
	}
	for _, x := range res.Problems {
		a.print("%s", x)
	}
	if bad == nil {
		a.print("all as it was written: %d backups, %d files, %d WAL segments", res.Backups, res.Files, res.WAL)
	}
	return bad
}

func verifyJSON(where string, res *backup.VerifyResult) map[string]any {
	problems := []map[string]string{}
	for _, x := range res.Problems {
		problems = append(problems, map[string]string{"label": x.Label, "file": x.File, "text": x.Text})
	}
	return map[string]any{"schema": 1, "repository": where, "backups": res.Backups, "files": res.Files, "wal": res.WAL, "problems": problems}
}
