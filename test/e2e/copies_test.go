package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/porttest"
)

// tablespacesRestored: a primary with two tablespaces is backed up, copied beside
// itself and restored. The standby is away meanwhile: on one machine it would use
// the same directories.
func tablespacesRestored(t *testing.T) {
	e := shared(t, 4*time.Minute)
	s := e.healthy()
	away := standby(s)
	if err := e.KillHost(away); err != nil {
		t.Fatal(err)
	}
	if err := e.WaitAlone(e.ctx); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(e.Data, s.Primary, "pgdata")
	one, two, copies := e.ownedFolder(data), e.ownedFolder(data), e.ownedFolder(data)
	dsn := e.NodeDSN(s.Primary)
	e.value(dsn, "create tablespace e2e_one location '"+one+"'")
	e.value(dsn, "create tablespace e2e_two location '"+two+"'")
	e.value(dsn, "create table e2e_t1 tablespace e2e_one as select n from generate_series(1, 5000) n")
	e.ok(e.manada("backup", "--type", "full"))
	e.value(dsn, "create table e2e_t2 tablespace e2e_two as select n from generate_series(1, 700) n")
	e.ok(e.manada("backup", "--type", "incr"))
	e.value(dsn, "insert into e2e_t2 values (0)") // in the archive only
	e.archiveAll(s.Primary)
	e.value(dsn, "checkpoint")
	before := diskState(t, one, two)

	dir := filepath.Join(copies, "copy")
	for _, args := range [][]string{{}, {"--delta"}, {"--tablespace-map", "e2e_one=" + two + "/x", "--tablespace-map", "e2e_two=" + copies + "/2"}} {
		r := e.manada(append([]string{"restore", "--to", dir}, args...)...)
		e.refused(r, 1, "tablespace", "hint: ")
		if strings.Contains(r.err, "--delta") {
			t.Errorf("the refusal proposes to overwrite: %s", r.err)
		}
	}
	maps := []string{"--tablespace-map", "e2e_one=" + copies + "/1", "--tablespace-map-all", copies}
	plan := e.ok(e.manada(append([]string{"restore", "--to", dir, "--dry-run"}, maps...)...))
	if !strings.Contains(plan.out, "tablespace e2e_one: "+copies+"/1") || !strings.Contains(plan.out, "tablespace e2e_two: "+copies+"/e2e_two") {
		t.Errorf("the plan:\n%s", plan.out)
	}
	if left, _ := os.ReadDir(filepath.Join(copies, "1")); len(left) > 0 {
		t.Error("a dry run has restored")
	}
	e.asPrinted(e.ok(e.manada(append([]string{"restore", "--to", dir}, maps...)...)), data, func(psql func(string) string) {
		e.eventually(time.Minute, "end of recovery", func() string {
			if v := psql("select pg_is_in_recovery()"); v != "f" {
				return v
			}
			return ""
		})
		if got := psql("select (select count(*) from e2e_t1) || ' ' || (select count(*) from e2e_t2)"); got != "5000 701" {
			t.Errorf("the copy has %s", got)
		}
		for name, want := range map[string]string{"e2e_one": "1", "e2e_two": "e2e_two"} {
			if got := psql("select pg_tablespace_location(oid) from pg_tablespace where spcname = '" + name + "'"); got != filepath.Join(copies, want) {
				t.Errorf("%s of the copy is in %s", name, got)
			}
		}
		psql("drop table e2e_t1, e2e_t2")
		psql("checkpoint")
	})
	if diskState(t, one, two) != before {
		t.Fatal("the copy has changed the tablespaces of the primary")
	}

	e.value(dsn, "insert into e2e_t2 values (0)")
	// The command waits for the standby, which stays away.
	e.refused(e.manada("restore", "--herd", "--timeout", "5s"), 6, "not done after 5s", "--resume")
	e.await("restored primary", func(now cluster.Status) bool { return now.Primary == s.Primary && now.Epoch > s.Epoch })
	if got := e.value(dsn, "select (select count(*) from e2e_t1) || ' ' || (select count(*) from e2e_t2)"); got != "5000 702" {
		t.Errorf("the restored herd has %s", got)
	}
	if got := e.value(dsn, "select string_agg(pg_tablespace_location(oid), ' ' order by spcname) from pg_tablespace where spcname like 'e2e%'"); got != one+" "+two {
		t.Errorf("its tablespaces are in %s", got)
	}
	for _, sql := range []string{"drop table e2e_t1, e2e_t2", "drop tablespace e2e_one", "drop tablespace e2e_two"} {
		e.value(dsn, sql)
	}
	if err := e.StartHost(e.ctx, away); err != nil {
		t.Fatal(err)
	}
	e.healthy()
}

// diskState is what lies in directories, byte for byte.
func diskState(t *testing.T, dirs ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `find "$@" -printf '%P %s %T@ %i\n' -type f -exec sha1sum {} + | sort`, "sh"}, dirs...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// asPrinted starts a restored copy with the very lines that the command printed,
// but for the port, and asks it through them.
func (e *env) asPrinted(r result, owned string, use func(psql func(sql string) string)) {
	e.Helper()
	_, next, ok := strings.Cut(r.out, "Next:\n")
	lines := strings.Split(strings.TrimSpace(next), "\n")
	if !ok || len(lines) != 2 {
		e.Fatalf("what comes next?\n%s", r.out)
	}
	port, err := porttest.Pick()
	if err != nil {
		e.Fatal(err)
	}
	for i, l := range lines {
		l, _, _ = strings.Cut(l, "    (as ")
		lines[i] = strings.ReplaceAll(strings.TrimSpace(l), "5499", fmt.Sprint(port))
	}
	shell := func(line string) *exec.Cmd { return exec.CommandContext(e.ctx, "sh", "-c", line) }
	e.ok(e.run(e.asOwner(shell(lines[0]), owned)))
	defer func() {
		e.ok(e.run(e.asOwner(shell(strings.Replace(lines[0], " start", " -m immediate stop", 1)), owned)))
	}()
	use(func(sql string) string {
		line := lines[1] + ` -XAtqc "` + sql + `"`
		first := e.ok(e.run(e.asOwner(shell(line), owned))).out
		if os.Geteuid() == 0 && strings.HasPrefix(sql, "select (") { // of what does not change
			if again := e.ok(e.run(shell(line))).out; again != first {
				e.Errorf("root hears %q, the owner %q", again, first)
			}
		}
		return strings.TrimSpace(first)
	})
}

// repositoryGone: while the repository does not answer a copy does not take the
// archive to end there, and a standby that has to catch up does so all the same.
func repositoryGone(t *testing.T) {
	e := shared(t, 4*time.Minute)
	e.backedUp()
	s := e.healthy()
	dsn := e.DSN()
	e.value(dsn, "create table if not exists e2e_late (n int)")
	for n := range 3 {
		e.value(dsn, fmt.Sprintf("insert into e2e_late values (%d)", n))
		e.archiveAll(s.Primary)
	}
	want := e.value(dsn, "select count(*) from e2e_late")
	dir := filepath.Join(e.ownedFolder(e.Data+"/backup"), "copy")
	e.ok(e.manada("restore", "--to", dir))
	if err := e.KillHost("backup"); err != nil {
		t.Fatal(err)
	}

	// The copy: PostgreSQL gives up instead of opening what it has so far.
	log := filepath.Join(filepath.Dir(dir), "log")
	pgctl := func(args string) result {
		return e.run(e.asOwner(exec.CommandContext(e.ctx, "sh", "-c", fmt.Sprintf("%s/pg_ctl -D %s -l %s -o '-k %s' -w %s", pgbin, dir, log, filepath.Dir(dir), args)), dir))
	}
	if r := pgctl("start"); r.code == 0 {
		t.Errorf("a copy has started without its archive")
		pgctl("-m immediate stop")
	}
	if text, _ := os.ReadFile(log); !bytes.Contains(text, []byte("could not restore file")) || bytes.Contains(text, []byte("archive recovery complete")) {
		t.Errorf("its log:\n%s", text)
	}

	if err := e.StartHost(e.ctx, "backup"); err != nil { // its vote is needed for what follows
		t.Fatal(err)
	}
	e.healthy()

	// The standby: it has missed segments, and asks an archive that does not answer
	// before it streams.
	thaw := e.frozen("backup", "backupd")
	defer thaw()
	away := standby(s)
	if err := e.KillHost(away); err != nil {
		t.Fatal(err)
	}
	if err := e.WaitAlone(e.ctx); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		e.value(e.NodeDSN(s.Primary), fmt.Sprintf("insert into e2e_late values (%d)", 10+n))
		e.value(e.NodeDSN(s.Primary), "select pg_switch_wal()")
	}
	if err := e.StartHost(e.ctx, away); err != nil {
		t.Fatal(err)
	}
	e.await("synchronous standby without a repository", func(s cluster.Status) bool { return s.K >= 1 })
	pid := e.Postmaster(away)
	e.eventually(20*time.Second, "standby that has caught up", func() string {
		return strings.TrimPrefix(e.value(e.NodeDSN(away), "select count(*) - "+want+" from e2e_late"), "3")
	})
	if now := e.Postmaster(away); now != pid || now == 0 {
		t.Errorf("the standby's PostgreSQL was %d and is %d", pid, now)
	}
	thaw()
	e.healthy()
	p := e.startByHand(dir)
	p.recovered()
	if v, err := p.psql("select count(*) from e2e_late"); err != nil || v < want {
		t.Errorf("the copy has %s rows of %s, %v", v, want, err)
	}
	p.kill()
}

// damagedPages: a page that is damaged on the primary's disk makes its backup
// fail, and the status say so, but no clean backup is lost to it; what is damaged
// in the repository is found by verify.
func damagedPages(t *testing.T) {
	e := shared(t, 4*time.Minute)
	s := e.healthy()
	defer e.expireAtOnce()()
	dsn := e.NodeDSN(s.Primary)
	e.value(dsn, "create table e2e_page as select n from generate_series(1, 5000) n")
	e.value(dsn, "vacuum freeze e2e_page") // nobody writes its pages again
	e.value(dsn, "checkpoint")
	e.ok(e.manada("backup", "--type", "full"))
	clean := e.labels()[len(e.labels())-1]
	file := filepath.Join(e.Data, s.Primary, "pgdata", e.value(dsn, "select pg_relation_filepath('e2e_page')"))
	flip(t, file, 2*8192+5000)
	for range 3 { // more than the retention keeps
		e.refused(e.manada("backup", "--type", "full"), 1, "was made, but one file of it has damaged pages", "hint: ", "newest clean backup")
	}
	if r := e.ok(e.manada("backups")); !strings.Contains(r.out, clean) || strings.Count(r.out, "! page checksum errors") != 2 {
		t.Errorf("damaged backups pushed the clean one out:\n%s", r.out)
	}
	e.await("word of the damage", func(s cluster.Status) bool {
		for _, c := range s.Conditions {
			if c.Code == "M-B10" && strings.Contains(c.Text, clean) {
				return true
			}
		}
		return false
	})
	if r := e.face("--stanza=herd", "--type=incr", "backup"); r.code != 26 || !strings.Contains(r.err, "damaged pages") {
		t.Errorf("the face: %d %s", r.code, r.err)
	}
	e.ok(e.face("--stanza=herd", "--type=incr", "--no-checksum-page-error", "backup"))
	e.ok(e.manada("backup", "--checksum-page-error=false"))
	flip(t, file, 2*8192+5000)
	for range 2 { // those with the damage expire
		e.ok(e.manada("backup", "--type", "full"))
	}
	e.await("no word of damage", func(s cluster.Status) bool {
		for _, c := range s.Conditions {
			if c.Code == "M-B10" {
				return false
			}
		}
		return true
	})
	e.value(dsn, "drop table e2e_page")

	if r := e.ok(e.manada("verify")); !strings.Contains(r.out, "all as it was written") {
		t.Errorf("verify: %s", r.out)
	}
	all := e.labels()
	bundle := filepath.Join(e.Data, "backup", "repo", "backup", "herd", all[len(all)-1], "bundle", "1")
	flip(t, bundle, 3000)
	r := e.manada("verify", all[len(all)-1], "-o", "json")
	if r.code != 3 || !strings.Contains(r.out, `"problems":[{`) || !strings.Contains(r.out, `"label":"`+all[len(all)-1]) {
		t.Errorf("verify of a damaged backup: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := e.face("--stanza=herd", "verify"); r.code != 122 || !strings.Contains(r.out, "status: error") {
		t.Errorf("the face's: exit %d\n%s%s", r.code, r.out, r.err)
	}
	flip(t, bundle, 3000)
	e.ok(e.face("--stanza=herd", "verify"))
	e.healthy()
}

// expireAtOnce lets a backup take the place of an older one whatever its age;
// the returned function puts the default back.
func (e *env) expireAtOnce() (restore func()) {
	e.Helper()
	before, err := os.ReadFile(filepath.Join(e.Data, "backup", "manada.yaml"))
	if err != nil {
		e.Fatal(err)
	}
	reconfigure := func(text []byte) {
		e.Helper()
		e.reconfigure("backup", "backupd", text)
		e.eventually(20*time.Second, "repository that answers", func() string {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", e.Port("backup", "backup")))
			if err != nil {
				return err.Error()
			}
			c.Close()
			return ""
		})
	}
	reconfigure(append(bytes.Clone(before), "\nbackup:\n  retention_min_age: 0s\n"...))
	return func() { reconfigure(before) }
}

// flip inverts a byte of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{^b[0]}, at); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Fsync(int(f.Fd()))
}
