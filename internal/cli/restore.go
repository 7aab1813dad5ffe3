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
	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/durable"
	"manada/internal/herd"
	"manada/internal/repo"
)

type restoreFlags struct {
	to, set, action string
	at              targetFlags
	delta           bool
	spaces          []string // NAME=DIR
	allSpaces       string
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
standby. Start it with pg_ctl; it is reached through its unix socket. Its
tablespaces go where --tablespace-map says, else to where they were; directories
that a cluster of this host uses, or that have something in them, are refused,
with --delta too, which goes over an earlier restore into DIR only.` + exits(exitFailed, exitUsage, exitNoPrimary, exitRefused, exitUnknown),
		Example: `  manada restore --herd
  manada restore --herd --target-time '2026-11-22 14:30:00+01' --dry-run
  manada restore --herd --type=time --target='2026-11-22 14:30:00+01' --yes
  manada restore --herd --undo
  manada restore --to /srv/restored --target-time '2026-11-22 14:30Z'
  manada restore --to /srv/restored --set 20261122-030000F
  manada restore --to /srv/restored --tablespace-map fast=/srv/fast2 --dry-run`,
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
	fl.BoolVar(&f.delta, "delta", false, "complete or repeat an earlier restore into DIR: keep what is as in the backup, remove what is not in it")
	fl.StringArrayVar(&f.spaces, "tablespace-map", nil, "`NAME=DIR`: where a tablespace, by its name or oid, goes; may be repeated")
	fl.StringVar(&f.allSpaces, "tablespace-map-all", "", "`DIR` in which all other tablespaces go, each under its name")
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
	c, r, err := a.openRepository()
	if err != nil {
		return err
	}
	for _, cfg := range c.hosts {
		if within(dir, cfg.PGData()) || within(cfg.PGData(), dir) {
			return fail(exitRefused, "choose a new directory", "%s is, or overlaps, the data directory of host %s", dir, cfg.Node)
		}
	}
	account, err := c.hosts[0].RunAs()
	if err != nil {
		return err
	}
	earlier := f.delta && restoredBefore(dir)
	if err := refuseFull(dir, earlier); err != nil {
		return err
	}
	if !f.on.dryRun {
		if err := prepareRestore(dir, account); err != nil {
			return err
		}
	}
	command, err := a.restoreCommand(c, account, false)
	if err != nil {
		return err
	}
	exe, err := a.program(c, account)
	if err != nil {
		return err
	}
	if err := become(account); err != nil { // the files are to be PostgreSQL's
		return err
	}
	return a.doRestore(ctx, r, dir, [2]string{command, recoveryEndText(exe)}, c.dataDirs(), f)
}

// restoreCommandText is for recovery.
func restoreCommandText(exe, file string, standby bool) string {
	how := ""
	if standby {
		how = " --standby"
	}
	return fmt.Sprintf("%s archive-get%s -c %s %%f %%p", calledBy(exe), how, shellWord(file))
}

// recoveryEndText is what follows recovery, in the data directory.
func recoveryEndText(exe string) string { return calledBy(exe) + " recovery-end pg_wal" }

// calledBy is this program for the shell: one that has another's name (it was
// copied, not linked) is told that it is meant by its own.
func calledBy(exe string) string {
	if filepath.Base(exe) != "manada" {
		return shellWord(exe) + " " + OwnName
	}
	return shellWord(exe)
}

// OwnName as the first argument says that this program is meant, whatever name
// it was called by.
const OwnName = "manada"

// shellWord quotes a path for the shell, in a setting where % is special.
func shellWord(s string) string {
	s = strings.ReplaceAll(s, "%", "%%")
	if strings.ContainsFunc(s, func(c rune) bool {
		return !strings.ContainsRune("/._-+:@%,", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) {
		s = "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// dataDirs are the data directories of this machine's hosts.
func (c *caller) dataDirs() []string {
	var out []string
	for _, cfg := range c.hosts {
		if cfg.Has(config.Database) {
			out = append(out, cfg.PGData())
		}
	}
	return out
}

// restoredBefore says whether a directory has what an earlier restore into it
// left, whole or not.
func restoredBefore(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, repo.ManifestFile)); err == nil {
		return true
	}
	b, err := os.ReadFile(filepath.Join(dir, "postgresql.conf"))
	return err == nil && strings.HasPrefix(string(b), restoredMark)
}

// refuseFull refuses a directory that has something else in it.
func refuseFull(dir string, reuse bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	switch {
	case len(entries) == 0 || reuse:
		return nil
	case restoredBefore(dir):
		return fail(exitRefused, "choose a new directory, or add --delta to restore over the earlier restore in it", "%s is not empty", dir)
	}
	return fail(exitRefused, "choose a new directory; --delta goes over an earlier restore only", "%s is not empty, and no earlier restore is in it", dir)
}

// prepareRestore makes the directory.
func prepareRestore(dir string, account config.Account) error {
	if b := account.Reaches(filepath.Join(dir, "x")); b != "" && b != dir {
		return fail(exitUsage, "choose a directory below one that everybody can enter, such as /var/lib/postgresql", "user %s cannot enter %s", account.Name, b)
	}
	return herd.MakeDir(dir, 0o700, account)
}

// program is this one, where the account can execute it.
func (a *app) program(c *caller, account config.Account) (string, error) {
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
	return exe, nil
}

// restoreCommand is what the restored PostgreSQL fetches WAL with: this program,
// as one of this machine's hosts.
func (a *app) restoreCommand(c *caller, account config.Account, standby bool) (string, error) {
	exe, err := a.program(c, account)
	if err != nil {
		return "", err
	}
	for _, cfg := range c.hosts {
		if !cfg.HasAgent() || !cfg.HasIdentity() {
			continue
		}
		file, err := filepath.Abs(cfg.File)
		return restoreCommandText(exe, file, standby), err
	}
	return "", fail(exitFailed, "restore on a data or witness host", "this host cannot read the repository")
}

// doRestore writes the copy; commands are its restore_command and its
// recovery_end_command.
func (a *app) doRestore(ctx context.Context, r *repository, dir string, commands [2]string, others []string, f restoreFlags) error {
	kind, target, err := f.at.resolve()
	if err != nil {
		return err
	}
	spaces, err := spaceMap(f.spaces)
	if err != nil {
		return err
	}
	o := backup.RestoreOptions{
		Storage: r.storage, Stanza: r.cfg.Backup.Stanza, Dir: dir, Set: f.set, Type: backup.RestoreType(kind), Target: target, TargetExclusive: f.at.exclusive,
		Delta: f.delta, TablespaceMap: spaces, TablespaceMapAll: f.allSpaces, Others: others, DryRun: f.on.dryRun,
		RestoreCommand: commands[0], RecoveryOptions: map[string]string{"recovery-end-command": commands[1]}, ArchiveOff: true, Workers: r.cfg.Backup.Processes,
	}
	if target != "" || kind == string(backup.RestoreImmediate) {
		o.TargetAction = f.action
	}
	if f.on.timeline != 0 {
		o.TargetTimeline = strconv.FormatUint(uint64(f.on.timeline), 10)
	}
	var res *backup.RestoreResult
	err = a.follow(ctx, "restore", func(p *progress) (err error) {
		o.Progress = p.bytes
		res, err = backup.Restore(ctx, o)
		return err
	}, func() error {
		return fail(exitInterrupted, "manada restore --delta  goes on from there", "interrupted; %s cannot be started before it is complete", dir)
	})
	if err != nil {
		return err
	}
	if !f.on.dryRun {
		if err := standalone(dir, res.Label, r.cfg.PostgreSQL.Parameters); err != nil {
			return err
		}
	}
	return a.tellRestore(r, dir, res, f.on.dryRun)
}

// spaceMap reads NAME=DIR.
func spaceMap(pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range pairs {
		name, dir, ok := strings.Cut(p, "=")
		if !ok || name == "" || !filepath.IsAbs(dir) {
			return nil, usage("--tablespace-map fast=/srv/restored-fast", "--tablespace-map %q: want the name of a tablespace and an absolute path", p)
		}
		out[name] = dir
	}
	return out, nil
}

func (a *app) tellRestore(r *repository, dir string, res *backup.RestoreResult, dry bool) error {
	if a.output == "json" {
		spaces := map[string]string{}
		for _, s := range res.Spaces {
			spaces[s.Name] = s.To
		}
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "label": res.Label, "dir": dir, "dry_run": dry, "stop": res.Stop.UTC().Format(time.RFC3339),
			"files": res.Files, "kept": res.Kept, "bytes": res.Bytes, "restored_bytes": res.Restored, "tablespaces": spaces, "notices": res.Notices})
	}
	for _, n := range res.Notices {
		a.say("note: %s", n)
	}
	if dry {
		a.print("PLAN  restore %s, ended %s, into %s: %d files, %s", res.Label, res.Stop.UTC().Format("2006-01-02 15:04:05Z"), dir, res.Files, bytesText(res.Bytes))
	} else {
		a.print("%s restored into %s: %d files, %s", res.Label, dir, res.Files, bytesText(res.Bytes))
	}
	for _, s := range res.Spaces {
		a.print("  tablespace %s: %s", s.Name, s.To)
	}
	if dry {
		return nil
	}
	a.print("Next:")
	a.print("  %s/pg_ctl -D %s -o '-p 5499 -k %s' -w start    (as the user who owns it)", r.cfg.PostgreSQL.BinDir, dir, dir)
	a.print("  psql -h %s -p 5499 -U %s postgres    (as that user, or root)", dir, cluster.RoleSuperuser)
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
	fmt.Fprintf(&b, "%s %s: a copy of its own, no member of a herd.\n", restoredMark, label)
	b.WriteString("listen_addresses = ''\narchive_mode = off\nsynchronous_standby_names = ''\n")
	for _, name := range slices.Sorted(maps.Keys(room)) {
		n, _ := strconv.Atoi(params[name])
		fmt.Fprintf(&b, "%s = %d\n", name, max(n, room[name]))
	}
	if libs := params["shared_preload_libraries"]; libs != "" {
		fmt.Fprintf(&b, "shared_preload_libraries = '%s'\n", strings.ReplaceAll(libs, "'", "''"))
	}
	hba := "# A copy that manada restored: whoever owns it, and root, is its superuser.\nlocal all " + cluster.RoleSuperuser + " peer map=owner\nlocal all all peer\n"
	ident := ""
	for _, who := range []string{config.CurrentAccount().Name, "root"} {
		ident += fmt.Sprintf("owner %q %s\n", who, cluster.RoleSuperuser)
	}
	for name, text := range map[string]string{"postgresql.conf": b.String(), "pg_hba.conf": hba, "pg_ident.conf": ident} {
		if err := durable.Write(filepath.Join(dir, name), []byte(text), durable.Options{Mode: 0o600}); err != nil {
			return fmt.Errorf("configure the restored directory: %w", err)
		}
	}
	return nil
}

// restoredMark begins the configuration of a copy.
const restoredMark = "# Restored by manada from backup"

// backupFailure gives an error of the engine its hint.
func backupFailure(err error) error {
	var e *backup.Error
	if errors.As(err, &e) {
		return fail(exitFailed, strings.ReplaceAll(e.Hint, "\n", " "), "%s", strings.Replace(err.Error(), "\nHINT: "+e.Hint, "", 1))
	}
	return err
}
