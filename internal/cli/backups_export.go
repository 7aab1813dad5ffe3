package cli

import (
	"context"
	"encoding/json"
	"path/filepath"

	"github.com/spf13/cobra"

	"manada/internal/backup"
)

func (a *app) backupsExportCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "export [LABEL] DIR",
		Short: "Copy a backup out of the repository, to be restored alone",
		Long: `Copy the newest backup, or the one with LABEL, into the folder DIR/LABEL: with
all that it builds on and the WAL that makes it consistent. The folder is a
repository of its own. pgBackRest restores it anywhere, without the herd:

  pgbackrest --stanza=STANZA --repo1-path=DIR/LABEL --pg1-path=NEW \
      --type=immediate restore

DIR/LABEL appears when it is complete and was read back.` + exits(exitFailed, exitUsage),
		Example: "  manada backups export /backup\n  manada backups export 20261122-030000F /mnt/usb",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("manada backups export /backup", "the folder to export into is missing")
			}
			return upTo(2)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			label, dir := "", args[len(args)-1]
			if len(args) == 2 {
				label = args[0]
			}
			return a.exportBackup(c.Context(), label, dir)
		},
	}
	a.outputFlag(c)
	return c
}

func (a *app) exportBackup(ctx context.Context, label, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	_, r, err := a.openRepository()
	if err != nil {
		return err
	}
	var res *backup.ExportResult
	err = a.follow(ctx, "export", func(p *progress) (err error) {
		res, err = backup.Export(ctx, backup.ExportOptions{
			Storage: r.storage, Stanza: r.cfg.Backup.Stanza, Set: label, Dir: dir, Workers: r.cfg.Backup.Processes, Progress: p.bytes,
		})
		return err
	}, func() error {
		return fail(exitInterrupted, "manada backups export  begins anew", "interrupted; nothing was exported")
	})
	if err != nil {
		return err
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "label": res.Label, "path": res.Path,
			"backups": res.Backups, "wal_files": res.WAL, "bytes": res.Bytes})
	}
	a.print("%s exported to %s: %d backups and %d files of WAL, %s", res.Label, res.Path, len(res.Backups), res.WAL, bytesText(res.Bytes))
	a.print("Restore it anywhere:")
	a.print("  pgbackrest --stanza=%s --repo1-path=%s --pg1-path=NEW --type=immediate restore", r.cfg.Backup.Stanza, res.Path)
	return nil
}
