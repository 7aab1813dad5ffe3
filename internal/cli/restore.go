package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/backup"
	"manada/internal/config"
	"manada/internal/herd"
)

type restoreFlags struct {
	to, set, action string
	at              targetFlags
	delta           bool
	on              herdFlags
}

func (a *app) restoreCmd() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:   "restore --herd | --to DIR",
		Short: "Restore the running herd, or a backup into a new directory",
		Long: `With --herd: restore the running herd, from any host of it. The plan is shown
first. Without a target everything that was acknowledged comes back and nothing
is asked; with one the herd goes back to it, which wants the name of the cluster
typed, or --yes. All nodes stop, the primary's data is replaced by the backup's
and recovered, a new epoch begins there, and the standbys follow or are rewound.
Killed at any moment it goes on by itself; --resume watches it, --undo ends it
as long as the new epoch has not begun.

With --to DIR: restore the newest backup (or --set) into a new data directory on
this machine and set it up to recover from the archive. The herd is not touched:
what is restored is a copy of its own, which archives nothing and waits for no
standby. Start it with pg_ctl; it is reached through its unix socket.` + exits(exitFailed, exitUsage, exitNoPrimary, exitRefused, exitUnknown),
		Example: `  manada restore --herd
  manada restore --herd --target-time '2026-11-22 14:30:00+01' --dry-run
  manada restore --herd --type=time --target='2026-11-22 14:30:00+01' --yes
  manada restore --herd --undo
  manada restore --to /srv/restored --target-time '2026-11-22 14:30Z'
  manada restore --to /srv/restored --set 20261122-030000F`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkHerdFlags(f); err != nil {
				return err
			}
			if f.on.herd {
				return a.restoreHerd(c.Context(), f)
			}
			return a.restore(c.Context(), f)
		},
	}
	fl := c.Flags()
	fl.BoolVar(&f.on.herd, "herd", false, "restore the running herd")
	fl.BoolVar(&f.on.keepOld, "keep-old", false, "keep the replaced data beside until the herd is synchronous again")
	fl.BoolVar(&f.on.yes, "yes", false, "do not ask")
	fl.BoolVar(&f.on.dryRun, "dry-run", false, "show the plan only")
	fl.BoolVar(&f.on.resume, "resume", false, "watch the restore that is under way")
	fl.BoolVar(&f.on.undo, "undo", false, "end the restore that is under way: back to the data that was there")
	fl.Uint32Var(&f.on.timeline, "target-timeline", 0, "`NUMBER` of the timeline to recover along; default: the herd's")
	fl.DurationVar(&f.on.timeout, "timeout", 0, "how long to watch; default: until it is done")
	fl.StringVar(&f.to, "to", "", "the new data directory `DIR`")
	fl.StringVar(&f.set, "set", "", "`LABEL` of the backup; default: the newest that reaches the target")
	f.at.add(fl)
	fl.StringVar(&f.action, "target-action", "promote", "what follows at the target: promote, pause or shutdown")
	fl.BoolVar(&f.delta, "delta", false, "use what is in DIR already and remove what is not in the backup")
	a.outputFlag(c)
	return c
}

func (a *app) restore(ctx context.Context, f restoreFlags) error {
	if f.to == "" {
		return usage("manada restore --herd  or  manada restore --to /srv/restored", "restore what: the running herd (--herd), or a copy into a new directory (--to DIR)?")
	}
	dir, err := filepath.Abs(f.to)
	if err != nil {
		return err
	}
	c, err := a.open()
	if err != nil {
		return err
	}
	r, err := c.openRepository()
	if err != nil {
		return err
	}
	for _, cfg := range c.hosts {
		if dir == cfg.PGData() {
			return fail(exitRefused, "choose a new directory", "%s is the data directory of host %s", dir, cfg.Node)
		}
	}
	account, err := c.hosts[0].RunAs()
	if err != nil {
		return err
	}
	if err := prepareRestore(dir, f.delta, account); err != nil {
		return err
	}
	command, err := a.restoreCommand(c, account)
	if err != nil {
		return err
	}
	if err := become(account); err != nil { // the files are to be PostgreSQL's
		return err
	}
	return a.doRestore(ctx, r, dir, command, f)
}

// prepareRestore makes the directory, which must be new or empty.
func prepareRestore(dir string, delta bool, account config.Account) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 && !delta {
		return fail(exitRefused, "choose a new directory, or add --delta to reuse what is there", "%s is not empty", dir)
	}
	if b := account.Reaches(filepath.Join(dir, "x")); b != "" && b != dir {
		return fail(exitUsage, "choose a directory below one that everybody can enter, such as /var/lib/postgresql", "user %s cannot enter %s", account.Name, b)
	}
	return herd.MakeDir(dir, 0o700, account)
}

// restoreCommand is what the restored PostgreSQL fetches WAL with: this program,
// as one of this machine's hosts.
func (a *app) restoreCommand(c *caller, account config.Account) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if account.CanExecute(exe) != nil && c.place.Dir != "" {
		h, err := config.ReadHerdFile(c.place.Dir)
		if err != nil {
			return "", err
		}
		exe = filepath.Join(h.Data, "bin", "manada") // the copy that the hosts run
	}
	if err := account.CanExecute(exe); err != nil {
		return "", fail(exitUsage, "install it where everybody can run it", "%w", err)
	}
	for _, cfg := range c.hosts {
		if !cfg.HasAgent() || !cfg.HasIdentity() {
			continue
		}
		file, err := filepath.Abs(cfg.File)
		return fmt.Sprintf("%s archive-get -c %s %%f %%p", exe, file), err
	}
	return "", fail(exitFailed, "restore on a data or witness host", "this host cannot read the repository")
}

func (a *app) doRestore(ctx context.Context, r *repository, dir, command string, f restoreFlags) error {
	kind, target, err := f.at.resolve()
	if err != nil {
		return err
	}
	p := a.newProgress("restore")
	o := backup.RestoreOptions{
		Storage: r.storage, Stanza: r.cfg.Backup.Stanza, Dir: dir, Set: f.set, Type: backup.RestoreType(kind), Target: target, TargetExclusive: f.at.exclusive,
		Delta: f.delta, RestoreCommand: command, ArchiveOff: true, Workers: r.cfg.Backup.Processes,
		Progress: func(x backup.Progress) { p.show(string(x.Phase), x.BytesDone, x.BytesTotal) },
	}
	if target != "" || kind == string(backup.RestoreImmediate) {
		o.TargetAction = f.action
	}
	if f.on.timeline != 0 {
		o.TargetTimeline = strconv.FormatUint(uint64(f.on.timeline), 10)
	}
	res, err := backup.Restore(ctx, o)
	p.end()
	if err != nil {
		if ctx.Err() != nil {
			return fail(exitInterrupted, "manada restore --delta  goes on from there", "interrupted; %s cannot be started before it is complete", dir)
		}
		return backupFailure(err)
	}
	if err := standalone(dir, res.Label, r.cfg.PostgreSQL.Parameters); err != nil {
		return err
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "label": res.Label, "dir": dir, "stop": res.Stop.UTC().Format(time.RFC3339),
			"files": res.Files, "kept": res.Kept, "bytes": res.Bytes, "restored_bytes": res.Restored, "notices": res.Notices})
	}
	for _, n := range res.Notices {
		a.say("note: %s", n)
	}
	a.print("%s restored into %s: %d files, %s", res.Label, dir, res.Files, bytesText(res.Bytes))
	a.print("Next:")
	a.print("  %s/pg_ctl -D %s -o '-p 5499 -k %s' -w start    (as the user who owns it)", r.cfg.PostgreSQL.BinDir, dir, dir)
	a.print("  psql -h %s -p 5499 postgres", dir)
	return nil
}

// room is at least what the primary may have had: a server that answers queries
// while it recovers refuses to run with less.
var room = map[string]int{"max_connections": 500, "max_worker_processes": 64, "max_wal_senders": 64,
	"max_prepared_transactions": 64, "max_locks_per_transaction": 256}

// standalone gives the restored directory a configuration of its own: the
// herd's is rendered elsewhere, and what the directory brings along waits for a
// standby that nobody is.
func standalone(dir, label string, params map[string]string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Restored by manada from backup %s: a copy of its own, no member of a herd.\n", label)
	b.WriteString("listen_addresses = ''\narchive_mode = off\nsynchronous_standby_names = ''\n")
	for _, name := range slices.Sorted(maps.Keys(room)) {
		n, _ := strconv.Atoi(params[name])
		fmt.Fprintf(&b, "%s = %d\n", name, max(n, room[name]))
	}
	if libs := params["shared_preload_libraries"]; libs != "" {
		fmt.Fprintf(&b, "shared_preload_libraries = '%s'\n", strings.ReplaceAll(libs, "'", "''"))
	}
	if err := os.WriteFile(filepath.Join(dir, "postgresql.conf"), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("configure the restored directory: %w", err)
	}
	return nil
}

// backupFailure gives an error of the engine its hint.
func backupFailure(err error) error {
	var e *backup.Error
	if errors.As(err, &e) {
		return fail(exitFailed, strings.ReplaceAll(e.Hint, "\n", " "), "%s", strings.Replace(err.Error(), "\nHINT: "+e.Hint, "", 1))
	}
	return err
}
