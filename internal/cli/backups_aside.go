package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/config"
	"manada/internal/pki"
	"manada/internal/process"
)

func (a *app) backupsSetAsideCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "set-aside FILE",
		Short: "Take a file of WAL out of the archive that is in the place of the true one",
		Long: `Take a WAL segment, or another file of WAL, out of the archive by its name, when
condition M-B15 says that the primary has another content under that name.
Archiving then goes on by itself with the primary's. The file is kept in
manada/set-aside of the repository. Only the repository host does it.` + exits(exitFailed, exitUsage),
		Example: "  manada backups set-aside 0000000100000000000000A7",
		Args:    exactly("the name of the file, as the condition in manada status has it"),
		RunE:    func(c *cobra.Command, args []string) error { return a.setAside(c.Context(), args[0]) },
	}
	a.outputFlag(c)
	return c
}

func (a *app) setAside(ctx context.Context, name string) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	var host *config.Config
	for _, cfg := range c.hosts {
		if cfg.Has(config.Repository) {
			host = cfg
		}
	}
	if host == nil {
		return fail(exitFailed, "type it on the host with the role repository", "only the repository host sets files of the archive aside")
	}
	id, err := pki.Load(host.IdentityDir())
	if err != nil {
		return err
	}
	own, err := process.OwnBackupd(host, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	files, err := own.SetAside(ctx, host.Backup.Stanza, name)
	if err != nil {
		return backupFailure(err)
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "files": files})
	}
	for _, f := range files {
		a.print("%s, stored %s, %s, is now %s/%s", name, f.Stored.Format("2006-01-02 15:04:05Z"), bytesText(f.Size), host.Backup.RepoPath, f.File)
	}
	return nil
}
