package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"manada/internal/cluster"
)

// face runs this program under the name pgbackrest, with a configuration file as
// the guide has it.
func (e *env) face(args ...string) result {
	e.Helper()
	dir := filepath.Join(base, "face")
	name := filepath.Join(dir, "pgbackrest")
	if _, err := os.Lstat(name); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			e.Fatal(err)
		}
		if err := os.Symlink(bin, name); err != nil {
			e.Fatal(err)
		}
		conf := "[global]\nrepo1-path=" + filepath.Join(e.Data, "backup", "repo") + "\nrepo1-retention-full=2\n[herd]\npg1-path=" + filepath.Join(e.Data, "master", "pgdata") + "\npg1-host=postgresql-slave\n"
		if err := os.WriteFile(filepath.Join(dir, "pgbackrest.conf"), []byte(conf), 0o644); err != nil {
			e.Fatal(err)
		}
	}
	here := filepath.Join(dir, "herd") // ./herd is where commands look
	_ = os.Remove(here)
	if err := os.Symlink(e.Dir, here); err != nil {
		e.Fatal(err)
	}
	cmd := exec.CommandContext(e.ctx, name, append(args, "--config="+filepath.Join(dir, "pgbackrest.conf"))...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TZ=UTC")
	return e.run(cmd)
}

// pgbackrestFace: the commands of the guide, typed on a host without a database;
// what Debian's pgbackrest tells of the repository is what the face tells.
func pgbackrestFace(t *testing.T) {
	e := shared(t, 4*time.Minute)
	e.keptTable()
	for range 2 {
		e.ok(e.face("--stanza=herd", "stanza-create"))
	}
	if r := e.ok(e.face("stanza-create", "--stanza=herd", "--log-level-console=info")); !strings.Contains(r.out, "P00   INFO: stanza 'herd' already exists on repo1 and is valid\n") {
		t.Errorf("%s", r.out)
	}
	before := e.labels()
	r := e.ok(e.face("--stanza=herd", "--type=full", "backup", "--annotation=why=guide", "--process-max=1", "--log-level-console=info"))
	line := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} P00   INFO: backup command end: completed successfully \(\d+ms\)$`)
	label := regexp.MustCompile(`INFO: new backup label = (\S+F)\n`).FindStringSubmatch(r.out)
	if !line.MatchString(r.out) || label == nil || !strings.Contains(r.out, "INFO: backup start archive = 0") || r.err != "" {
		t.Fatalf("%s%s", r.out, r.err)
	}
	e.ok(e.face("backup", "--type=incr", "--stanza=herd"))
	if now := e.labels(); len(now) == len(before) || !strings.HasPrefix(now[len(now)-1], label[1]+"_") {
		t.Errorf("backups: %v", now)
	}
	for _, args := range [][]string{{"info"}, {"info", "--output=json"}, {"--stanza=herd", "info"}, {"info", "--stanza=herd", "--set=" + label[1]}, {"info", "--stanza=herd", "--set=20200101-000000F"}} {
		theirs := e.judgeInfo(args)
		if d := cmp.Diff(theirs, e.ok(e.face(args...)).out); d != "" {
			t.Errorf("%v (-pgbackrest +ours): %s", args, d)
		}
	}
	if r := e.ok(e.face("--stanza=herd", "check", "--log-level-console=info")); !strings.Contains(r.out, "successfully archived to") {
		t.Errorf("%s", r.out)
	}
	e.ok(e.face("--stanza=herd", "--repo1-retention-full=9", "expire"))
	out := filepath.Join(e.ownedFolder(e.Data+"/backup"), "export")
	if r := e.ok(e.manada("backups", "export", label[1], out)); !strings.Contains(r.out, label[1]+" exported to "+out) {
		t.Errorf("%s", r.out)
	}
	e.refused(e.manada("backups", "export", label[1], out), 1, "exists already", "hint: Choose another directory")
	e.refused(e.manada("backups", "export", "20200101-000000F", out), 1, "does not exist")
	if r := e.ok(e.face("info", "--repo1-path="+filepath.Join(out, label[1]))); strings.Count(r.out, " backup: ") != 1 || !strings.Contains(r.out, label[1]) {
		t.Errorf("info of the export: %s", r.out)
	}
	faceRefuses(e)
	faceRestores(e, label[1])
}

// judgeInfo is what the C pgbackrest prints.
func (e *env) judgeInfo(args []string) string {
	e.Helper()
	scratch := e.ownedFolder(filepath.Join(e.Data, "backup", "repo"))
	conf := filepath.Join(scratch, "info.conf")
	text := fmt.Sprintf("[global]\nrepo1-path=%s\nlog-level-file=off\nlock-path=%s\n", filepath.Join(e.Data, "backup", "repo"), scratch)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		e.Fatal(err)
	}
	cmd := exec.CommandContext(e.ctx, "pgbackrest", append(slices.Clone(args), "--config="+conf)...)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	return e.ok(e.run(e.asOwner(cmd, filepath.Join(e.Data, "backup", "repo")))).out
}

func faceRefuses(e *env) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--foo"}, 31, "ERROR: [031]: invalid option '--foo'\n"},
		{[]string{"--stanza=herd"}, 30, "ERROR: [030]: no command found\n"},
		{[]string{"bakup"}, 48, "ERROR: [048]: invalid command 'bakup'\n       HINT: did you mean backup?\n"},
		{[]string{"--stanza=herd", "stanza-delete"}, 48, "ERROR: [048]: command 'stanza-delete' is not supported by Manada"},
		{[]string{"backup"}, 37, "ERROR: [037]: backup command requires option: stanza\n"},
		{[]string{"--stanza=other", "backup"}, 32, "stanza 'other' is not this herd's, which is 'herd'"},
		{[]string{"--stanza=herd", "--type=most", "backup"}, 32, "ERROR: [032]: 'most' is not allowed for 'type' option"},
		{[]string{"--stanza=herd", "--set=x", "backup"}, 31, "ERROR: [031]: option 'set' not valid for command 'backup'\n"},
		{[]string{"--stanza=herd", "--backup-standby", "backup"}, 31, "is not supported by Manada: backups are made on the primary"},
		{[]string{"--stanza=herd", "--repo1-cipher-pass=secret", "info"}, 31, "not allowed on the command-line"},
		{[]string{"--stanza=herd", "restore"}, 38, "HINT: manada restore --herd"},
		{[]string{"--stanza=herd", "restore", "--delta", "--pg1-path=" + filepath.Join(e.Data, "slave", "pgdata")}, 38, "is the data directory of host slave of the running herd"},
		{[]string{"--stanza=herd", "archive-push"}, 43, "ERROR: [043]: WAL segment to push required\n"},
		{[]string{"--stanza=herd", "--repo1-path=/elsewhere", "expire"}, 31, "expire works on the herd's repository"},
		{[]string{"info", "extra"}, 96, "ERROR: [096]: command does not allow parameters\n"},
	} {
		r := e.face(c.args...)
		if r.code != c.code || !strings.Contains(r.err, c.want) || r.out != "" {
			e.Errorf("pgbackrest %v: exit %d, %s%s", c.args, r.code, r.out, r.err)
		}
	}
	if s := e.healthy(); s.Primary == "" {
		e.Error("the herd is gone")
	}
}

// faceRestores: a copy beside the herd, which fetches WAL by the same name.
func faceRestores(e *env, label string) {
	dir := filepath.Join(e.ownedFolder(e.Data+"/backup"), "by-face")
	e.ok(e.face("--stanza=herd", "--set="+label, "--type=immediate", "--target-action=promote", "--pg1-path="+dir, "restore"))
	if r := e.face("--stanza=herd", "--pg1-path="+dir, "restore"); r.code != 40 || !strings.Contains(r.err, "because it contains files") {
		e.Errorf("over a directory that is there: %d %s", r.code, r.err)
	}
	p := e.startByHand(dir)
	p.recovered()
	if v, err := p.psql("select count(*) from e2e_kept"); err != nil || v != "20000" {
		e.Errorf("the restored copy has %s rows, %v", v, err)
	}
	p.kill()
	faceCopied(e, label)
	seg := e.value(e.DSN(), "select last_archived_wal from pg_stat_archiver")
	to := filepath.Join(filepath.Dir(dir), "segment")
	e.ok(e.face("--stanza=herd", "archive-get", seg, to))
	if st, err := os.Stat(to); err != nil || st.Size() != 16<<20 {
		e.Errorf("archive-get: %v", err)
	}
	if r := e.face("--stanza=herd", "archive-get", "0000000900000000000000FF", to); r.code != 1 {
		e.Errorf("archive-get of what is not there: exit %d %s", r.code, r.err)
	}
	_ = os.RemoveAll(dir)
}

// faceCopied: the program was copied under the name of pgbackrest, not linked;
// the copy that it restores fetches its WAL all the same.
func faceCopied(e *env, label string) {
	dir := e.ownedFolder(e.Data + "/backup")
	name := filepath.Join(dir, "pgbackrest")
	program, err := os.ReadFile(bin)
	if err == nil {
		err = os.WriteFile(name, program, 0o755)
	}
	if err != nil {
		e.Fatal(err)
	}
	cmd := exec.CommandContext(e.ctx, name, "--stanza=herd", "--set="+label, "--pg1-path="+dir+"/data", "restore", "--config="+filepath.Join(base, "face", "pgbackrest.conf"))
	cmd.Dir, cmd.Env = filepath.Join(base, "face"), append(os.Environ(), "TZ=UTC") // where ./herd is
	e.ok(e.run(cmd))
	p := e.startByHand(dir + "/data")
	p.recovered()
	want := e.value(e.DSN(), "select max(n) from e2e_kept")
	if v, err := p.psql("select max(n) from e2e_kept"); err != nil || v != want {
		e.Errorf("restored by a copied program: %s, %v", v, err)
	}
	p.kill()
	_ = os.RemoveAll(dir)
}

// scheduledBackup: the repository host has a backup made every minute, as soon
// as its configuration says so; status tells of the next one.
func scheduledBackup(t *testing.T) {
	e := shared(t, 4*time.Minute)
	if len(e.labels()) == 0 {
		fullBackup(t)
	}
	before := len(e.labels())
	file := filepath.Join(e.Data, "backup", "manada.yaml")
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text string) {
		e.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e.kill(e.pid("backup", "run"), syscall.SIGHUP)
	}
	if strings.Contains(string(was), "\nbackup:") {
		reload(strings.Replace(string(was), "\nbackup:\n", "\nbackup:\n  schedule:\n    incr: \"* * * * *\"\n", 1))
	} else {
		reload(string(was) + "\nbackup:\n  schedule:\n    incr: \"* * * * *\"\n")
	}
	e.await("the next scheduled backup in the status", func(s cluster.Status) bool {
		return s.Backup != nil && s.Backup.Next != nil && s.Backup.Next.Type == "incr" && time.Until(s.Backup.Next.At) < time.Minute
	})
	e.eventually(100*time.Second, "scheduled backup", func() string {
		if now := e.labels(); len(now) <= before {
			return fmt.Sprint(now)
		}
		return ""
	})
	reload(string(was))
	e.await("no schedule in the status", func(s cluster.Status) bool { return s.Backup != nil && s.Backup.Next == nil })
}
