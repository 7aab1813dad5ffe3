package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// backups that the repository lists.
type listed struct {
	Stanzas []struct {
		Backup []struct {
			Label, Type string
			Error       *bool
		}
		Status struct {
			Code    int
			Message string
		}
	}
}

func (e *env) labels() (out []string) {
	e.Helper()
	var l listed
	if err := json.Unmarshal([]byte(e.ok(e.manada("backups", "-o", "json")).out), &l); err != nil {
		e.Fatal(err)
	}
	for _, b := range l.Stanzas[0].Backup {
		if b.Error != nil && *b.Error {
			e.Errorf("backup %s has an error", b.Label)
		}
		out = append(out, b.Label)
	}
	return out
}

// fullBackup: Debian's pgbackrest agrees with what `backups` lists.
func fullBackup(t *testing.T) {
	e := shared(t, time.Minute)
	e.keptTable()
	r := e.ok(e.manada("backup", "--type", "full"))
	all := e.labels()
	if len(all) != 1 || !strings.HasSuffix(all[0], "F") || !strings.Contains(r.out, all[0]) {
		t.Errorf("after a full backup: %v\n%s", all, r.out)
	}
	for _, host := range hosts[:3] { // each of them knows at once
		if s := e.statusOf(host); s.Backup == nil || s.Backup.Last == nil || len(all) == 1 && s.Backup.Last.Label != all[0] {
			t.Errorf("%s does not know of the backup that was just made: %+v %+v", host, s.Backup, s.Conditions)
		}
	}
	if out := e.ok(e.pgbackrest("info")).out; !strings.Contains(out, "status: ok") || !strings.Contains(out, all[0]) {
		t.Errorf("pgbackrest info:\n%s", out)
	}
}

// keptTable makes a table that every restore has to bring back.
func (e *env) keptTable() {
	e.Helper()
	e.value(e.DSN(), "create table if not exists e2e_kept as select n, repeat('x', n % 50) as text from generate_series(1, 20000) n")
}

// statusCheckWell: nothing is wrong, and --check says so.
func statusCheckWell(t *testing.T) {
	e := shared(t, time.Minute)
	if len(e.labels()) == 0 {
		e.ok(e.manada("backup")) // a herd of its own
	}
	e.eventually(20*time.Second, "healthy herd", func() string {
		r := e.manada("status", "--check")
		quickly(e, r)
		if r.code != 0 {
			return fmt.Sprintf("exit %d\n%s%s", r.code, r.out, r.err)
		}
		return ""
	})
}

// pgbackrest runs Debian's program on the herd's repository, with files of its
// own: an ordinary user may not touch the packaged ones.
func (e *env) pgbackrest(args ...string) result {
	e.Helper()
	repo := filepath.Join(e.Data, "backup", "repo")
	scratch := e.ownedFolder(repo)
	conf := filepath.Join(scratch, "pgbackrest.conf")
	text := fmt.Sprintf("[global]\nrepo1-path=%s\nlog-level-file=off\nlog-level-console=warn\nlock-path=%s\narchive-async=y\nspool-path=%s\n", repo, scratch, scratch)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		e.Fatal(err)
	}
	args = append([]string{"--stanza=herd", "--config=" + conf}, args...)
	return e.run(e.asOwner(exec.CommandContext(e.ctx, "pgbackrest", args...), repo))
}

// backupInterrupted: SIGINT ends the command, not the backup; a restore that
// was interrupted cannot be mistaken for a whole one, and goes on.
func backupInterrupted(t *testing.T) {
	e := shared(t, time.Minute)
	e.keptTable()
	before := e.labels()
	r := e.interrupt("backup", "--type", "full")
	e.refused(r, 130, "interrupted", "goes on", "hint: manada backups")
	e.eventually(30*time.Second, "backup that went on", func() string {
		if now := e.labels(); len(now) == len(before) {
			return fmt.Sprint(now)
		}
		return ""
	})
	dir := filepath.Join(e.ownedFolder(e.Data+"/backup"), "copy")
	r = e.interrupt("restore", "--to", dir)
	e.refused(r, 130, "interrupted", dir, "hint: manada restore --delta")
	if _, err := os.Stat(filepath.Join(dir, "global", "pg_control")); err == nil {
		t.Error("an interrupted restore left a directory that starts")
	}
	e.refused(e.manada("restore", "--to", dir), 5, "not empty", "--delta")
	e.ok(e.manada("restore", "--to", dir, "--delta"))
	p := e.startByHand(dir)
	p.recovered()
	if v, err := p.psql("select count(*) from e2e_kept"); err != nil || v != e.value(e.DSN(), "select count(*) from e2e_kept") {
		t.Errorf("the restored copy has %s rows, %v", v, err)
	}
	p.kill()
}

// interrupt sends SIGINT as soon as the command has begun its work: sooner, if
// it was over too soon.
func (e *env) interrupt(args ...string) result {
	e.Helper()
	for after := 400 * time.Millisecond; ; after = after * 2 / 3 {
		cmd := exec.CommandContext(e.ctx, bin, append(args, "--dir", e.Dir)...)
		stop := make(chan struct{})
		go func() {
			select {
			case <-stop:
			case <-time.After(after):
				if cmd.Process != nil {
					_ = cmd.Process.Signal(syscall.SIGINT)
				}
			}
		}()
		r := e.run(cmd)
		close(stop)
		if r.code == 130 && args[0] == "backup" && !strings.Contains(r.out+r.err, "goes on") {
			after *= 3 // too early: the primary had not been asked yet
			continue
		}
		if r.code == 130 || after < 20*time.Millisecond {
			return r
		}
		if args[0] == "restore" {
			_ = os.RemoveAll(args[2])
		}
	}
}

// backupsAfterFailover: diff and incr across a change of the primary; the
// newest and the oldest backup recover to the same data, with our program and
// with Debian's, so the archive has no hole across the timelines.
func backupsAfterFailover(t *testing.T) {
	e := shared(t, 3*time.Minute)
	if len(e.labels()) == 0 {
		fullBackup(t)
	}
	e.ok(e.manada("backup", "--type", "diff"))
	l := e.write()
	e.ok(e.manada("switchover"))
	l.end("switchover between backups", bound)
	e.healthy()
	e.ok(e.manada("backup")) // incr
	e.value(e.DSN(), "create table if not exists e2e_last as select 1 as n")
	s := e.healthy()
	e.archiveAll(s.Primary)
	all := e.labels()
	if !strings.HasSuffix(all[len(all)-1], "I") || !slices.ContainsFunc(all, func(l string) bool { return strings.HasSuffix(l, "D") }) {
		t.Errorf("backups: %v", all)
	}
	if out := e.ok(e.pgbackrest("info")).out; !strings.Contains(out, "status: ok") || strings.Count(out, " backup: ") != len(all) {
		t.Errorf("pgbackrest info, %d backups expected:\n%s", len(all), out)
	}
	if r := e.ok(e.pgbackrest("verify")); strings.Contains(r.out+r.err, "rror") || strings.Contains(r.out, "missing") {
		t.Errorf("pgbackrest verify:\n%s%s", r.out, r.err)
	}
	source := e.fingerprint(func(sql string) (string, error) { return e.Value(e.ctx, e.DSN(), sql) })
	where := e.ownedFolder(e.Data + "/backup")
	for name, restore := range map[string]func(dir string) result{
		"manada restore of the newest": func(dir string) result { return e.manada("restore", "--to", dir) },
		"manada restore of the oldest": func(dir string) result { return e.manada("restore", "--to", dir, "--set", all[0]) },
		"pgbackrest restore":           func(dir string) result { return e.pgbackrest("--pg1-path="+dir, "restore") },
	} {
		dir := filepath.Join(where, strings.ReplaceAll(name, " ", "-"))
		e.ok(restore(dir))
		p := e.startByHand(dir, "-c", "synchronous_standby_names=", "-c", "archive_mode=off", "-c", "listen_addresses=",
			"-c", "max_connections=500", "-c", "max_wal_senders=64", "-c", "max_worker_processes=64")
		p.recovered()
		if got := e.fingerprint(p.psql); got != source {
			t.Errorf("%s differs from the source:\n%s\nsource:\n%s", name, got, source)
		}
		p.kill()
		_ = os.RemoveAll(dir)
	}
}

// archiveAll waits until everything that was committed is in the archive.
func (e *env) archiveAll(node string) {
	e.Helper()
	dsn := e.NodeDSN(node)
	seg := e.value(dsn, "select pg_walfile_name(pg_switch_wal())")
	e.eventually(30*time.Second, "archived segment "+seg, func() string {
		if v := e.value(dsn, "select coalesce(max(last_archived_wal), '') >= '"+seg+"' from pg_stat_archiver where last_archived_wal ~ '^[0-9A-F]{24}$'"); v != "t" {
			return e.value(dsn, "select row_to_json(a) from pg_stat_archiver a")
		}
		return ""
	})
}

// recovered waits for the end of recovery.
func (p *byHand) recovered() {
	p.e.Helper()
	p.e.eventually(time.Minute, "end of recovery", func() string {
		if v, err := p.psql("select pg_is_in_recovery()"); err != nil || v != "f" {
			return fmt.Sprint(v, err)
		}
		return ""
	})
}

// fingerprint counts and hashes every user table.
func (e *env) fingerprint(query func(string) (string, error)) string {
	e.Helper()
	names, err := query("select string_agg(format('%I.%I', schemaname, tablename), ' ' order by 1) from pg_tables where schemaname not in ('pg_catalog', 'information_schema', 'manada')")
	if err != nil {
		e.Fatal(err)
	}
	var b strings.Builder
	for _, name := range strings.Fields(names) {
		v, err := query("select count(*) || ' rows, hash ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from " + name + " t")
		if err != nil {
			e.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, v)
	}
	return b.String()
}
