package backup

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"manada/internal/blob"
	"manada/internal/repo"
)

// TestFailures: what goes wrong on one small cluster, one after the other.
func TestFailures(t *testing.T) {
	b := newBench(t)
	c := b.initdb("pg", b.walCommandText("push %p"))
	c.stanzaCreate()
	c.start()
	c.run(pgBin+"pgbench", "-h", c.sock, "-U", "postgres", "-i", "-q", "-s", "1", "postgres")
	full := c.backup(repo.Full)
	t.Run("lock", func(t *testing.T) { lockedOut(t, c) })
	t.Run("cancelled", func(t *testing.T) { cancelledBackup(t, c) })
	t.Run("wrong cluster", func(t *testing.T) { wrongCluster(t, c) })
	t.Run("archive timeout", func(t *testing.T) { archiveTimeout(t, c) })
	t.Run("target times", func(t *testing.T) { targetTimes(t, c) })
	t.Run("names", func(t *testing.T) { impossibleNames(t, c) })
	t.Run("page checksum", func(t *testing.T) { pageErrors(t, c) })
	c.flush()
	c.stop()
	t.Run("restore refuses", func(t *testing.T) { restoreRefuses(t, b, c) })
	t.Run("interrupted restore", func(t *testing.T) { interruptedRestore(t, b, full.Label) })
	t.Run("force", func(t *testing.T) { forced(t, b, full.Label) })
	t.Run("corruption", func(t *testing.T) { corruption(t, b, full.Label) })
}

func lockedOut(t *testing.T, c *pgCluster) {
	l, err := c.store.Lock(c.ctx, c.stanza+"-backup")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if _, err := Backup(c.ctx, c.options(repo.Full)); Code(err) != CodeLock {
		t.Errorf("a second backup: %v", err)
	}
	if _, err := Expire(c.ctx, c.store, c.stanza, Retention{Full: 1}, nil); Code(err) != CodeLock {
		t.Errorf("expire during a backup: %v", err)
	}
}

// cancelledBackup: one that is cancelled while it copies leaves nothing, and one
// that was killed leaves nothing valid, which the next backup removes.
func cancelledBackup(t *testing.T, c *pgCluster) {
	before := labels(t, c.bench)
	ctx, cancel := context.WithCancel(c.ctx)
	o := c.options(repo.Full)
	o.Progress = func(p Progress) {
		if p.Phase == PhaseCopy && p.FilesDone > 0 {
			cancel()
		}
	}
	if _, err := Backup(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled backup: %v", err)
	}
	if after := labels(t, c.bench); !slices.Equal(before, after) {
		t.Errorf("a cancelled backup left %v of %v", after, before)
	}
	c.until("PostgreSQL has ended the backup", func() bool {
		return c.sql("select count(*) from pg_stat_activity where query like '%pg_backup_start%' and pid <> pg_backend_pid()") == "0"
	})
	leftover := filepath.Join(c.store.Root(), repo.BackupPath(c.stanza, "20200101-000000F", "bundle"))
	if err := os.MkdirAll(leftover, 0o750); err != nil {
		t.Fatal(err)
	}
	random(t, filepath.Join(leftover, "1"), 1000)
	i, err := GetInfo(c.ctx, InfoOptions{Storage: c.store, Stanza: c.stanza})
	if err != nil || len(i[0].Backup) != 1 || i[0].Status.Code != 0 {
		t.Errorf("info with an unfinished backup: %+v, %v", i, err)
	}
	res := c.backup(repo.Incr)
	if !strings.Contains(strings.Join(res.Notices, "\n"), "unfinished backup 20200101-000000F") {
		t.Errorf("notices: %q", res.Notices)
	}
	if _, err := os.Stat(filepath.Dir(leftover)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished backup is still there: %v", err)
	}
}

func labels(t *testing.T, b *bench) []string {
	t.Helper()
	ls, err := labelDirs(b.ctx, b.store, b.stanza)
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

func wrongCluster(t *testing.T, c *pgCluster) {
	id, _ := ReadCluster(c.ctx, c.data)
	id.SystemID++
	err := StanzaCreate(c.ctx, c.store, c.stanza, id, nil)
	if Code(err) != CodeBackupMismatch || !strings.Contains(err.Error(), "belongs to another cluster") {
		t.Errorf("stanza-create for another cluster: %v", err)
	}
	c.stanzaCreate() // the right one again: nothing happens
	if err := StanzaCreate(c.ctx, c.store, "other", id, nil); err != nil {
		t.Fatal(err)
	}
	o := c.options(repo.Full)
	o.Stanza = "other"
	if _, err := Backup(c.ctx, o); Code(err) != CodeBackupMismatch {
		t.Errorf("backup into another cluster's stanza: %v", err)
	}
	o.Stanza = "none"
	if _, err := Backup(c.ctx, o); Code(err) != CodeFileMissing || !strings.Contains(err.Error(), "stanza-create") {
		t.Errorf("backup into no stanza: %v", err)
	}
	var seg string
	filepath.WalkDir(filepath.Join(c.data, "pg_wal"), func(p string, d fs.DirEntry, _ error) error {
		if repo.KindOfWAL(filepath.Base(p)) == repo.WALSegment {
			seg = p
		}
		return nil
	})
	if err := ArchivePush(c.ctx, ArchiveOptions{Storage: c.store, Stanza: "other"}, seg); Code(err) != CodeArchiveMismatch {
		t.Errorf("push into another cluster's stanza: %v", err)
	}
}

func archiveTimeout(t *testing.T, c *pgCluster) {
	old := c.sql("show archive_command")
	c.setArchive("false")
	defer c.setArchive(old)
	before := labels(t, c.bench)
	o := c.options(repo.Incr)
	o.ArchiveTimeout = 300 * time.Millisecond
	_, err := Backup(c.ctx, o)
	if Code(err) != CodeArchiveTimeout || !strings.Contains(err.Error(), "archive_command") {
		t.Errorf("backup while the archive does not work: %v", err)
	}
	if after := labels(t, c.bench); !slices.Equal(before, after) {
		t.Errorf("it left %v of %v", after, before)
	}
}

func (c *pgCluster) setArchive(cmd string) {
	c.t.Helper()
	c.sql("alter system set archive_command = '" + strings.ReplaceAll(cmd, "'", "''") + "'")
	c.sql("select pg_reload_conf()")
	c.until("the setting is there", func() bool { return c.sql("show archive_command") == cmd })
}

// pageErrors: a page that is damaged on disk is reported and recorded, and
// pg_checksums agrees that it is the only one.
func pageErrors(t *testing.T, c *pgCluster) {
	c.sql("create table damaged as select g from generate_series(1, 5000) g; checkpoint")
	rel := c.sql("select pg_relation_filepath('damaged')")
	f, err := os.OpenFile(filepath.Join(c.data, rel), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var was [1]byte
	f.ReadAt(was[:], 3*pageSize+5000)
	f.WriteAt([]byte{was[0] ^ 0xFF}, 3*pageSize+5000)
	res := c.backup(repo.Incr)
	if res.PageErrs != 1 || !strings.Contains(strings.Join(res.Notices, "\n"), rel+": pages [3]") {
		t.Errorf("%d files with page errors, notices %q", res.PageErrs, res.Notices)
	}
	i, err := GetInfo(c.ctx, InfoOptions{Storage: c.store, Stanza: c.stanza})
	if err != nil || i[0].Last().Error == nil || !*i[0].Last().Error {
		t.Errorf("info does not tell of it: %+v, %v", i, err)
	}
	f.WriteAt(was[:], 3*pageSize+5000)
	c.sql("drop table damaged")
}

// impossibleNames: a file whose name cannot be written is found before anything
// is copied, and a database with such a name stops nobody's backups.
func impossibleNames(t *testing.T, c *pgCluster) {
	c.sql("create database \"two\nlines\"")
	defer c.sql("drop database \"two\nlines\"")
	if res := c.backup(repo.Incr); !strings.Contains(strings.Join(res.Notices, "\n"), `database "two\nlines"`) {
		t.Errorf("notices %q", res.Notices)
	}
	bad := filepath.Join(c.data, "a\nb")
	random(t, bad, 10)
	defer os.Remove(bad)
	o := c.options(repo.Full)
	o.Progress = func(p Progress) {
		if p.Phase == PhaseCopy {
			t.Error("it began to copy")
		}
	}
	if _, err := Backup(c.ctx, o); Code(err) != CodeFormat || !strings.Contains(err.Error(), `a\nb`) || !strings.Contains(err.Error(), "Rename") {
		t.Errorf("a file with a line break in its name: %v", err)
	}
}

// forced: --force alone writes everything anew, whatever size and time say; with
// --delta it trusts them, and --delta alone does not.
func forced(t *testing.T, b *bench, label string) {
	c := b.at("forced")
	const changed = "by somebody"
	for _, x := range []struct {
		delta, force, kept bool
	}{{false, true, false}, {true, true, true}, {true, false, false}} {
		o := b.restoreOptions(c)
		o.Set, o.Type, o.Force = label, RestoreNone, true
		if _, err := Restore(b.ctx, o); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(c.data, "base", "1", "2619")
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte(changed), 100)
		f.Close()
		os.Chtimes(path, st.ModTime(), st.ModTime())
		o.Delta, o.Force = x.delta, x.force
		res, err := Restore(b.ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(path)
		if got := bytes.Contains(data, []byte(changed)); got != x.kept || (res.Kept > 0) != x.delta {
			t.Errorf("delta %v, force %v: the change is kept %v, %d files kept", x.delta, x.force, got, res.Kept)
		}
	}
}

func restoreRefuses(t *testing.T, b *bench, c *pgCluster) {
	if _, err := Restore(b.ctx, b.restoreOptions(c)); Code(err) != CodePathNotEmpty {
		t.Errorf("over a data directory without delta: %v", err)
	}
	other := b.at("notpg")
	if err := os.Mkdir(other.data, 0o700); err != nil {
		t.Fatal(err)
	}
	random(t, filepath.Join(other.data, "letters.txt"), 10)
	o := b.restoreOptions(other)
	o.Delta = true
	if _, err := Restore(b.ctx, o); Code(err) != CodePathNotEmpty {
		t.Errorf("with delta over a directory that is no data directory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(other.data, "letters.txt")); err != nil {
		t.Errorf("it removed files: %v", err)
	}
	run := b.at("running")
	os.Mkdir(run.data, 0o700)
	// A process that works in the directory, as a postmaster does.
	p := exec.CommandContext(b.ctx, "sleep", "100")
	p.Dir = run.data
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { p.Process.Kill(); p.Wait() }()
	os.WriteFile(filepath.Join(run.data, "postmaster.pid"), []byte(strconv.Itoa(p.Process.Pid)+"\n"), 0o600)
	if _, err := Restore(b.ctx, b.restoreOptions(run)); Code(err) != CodePgRunning {
		t.Errorf("under a running postmaster: %v", err)
	}
	o = b.restoreOptions(b.at("x"))
	o.Type, o.Target = RestoreTime, "2001-01-01 00:00:00+00"
	if _, err := Restore(b.ctx, o); Code(err) != CodeBackupSet {
		t.Errorf("to a time before all backups: %v", err)
	}
	o.Target = ""
	if _, err := Restore(b.ctx, o); Code(err) != CodeOption {
		t.Errorf("to a time without one: %v", err)
	}
}

// interruptedRestore: it cannot be started, and a delta restore completes it and
// keeps what was already right.
func interruptedRestore(t *testing.T, b *bench, label string) {
	c := b.at("broken")
	ctx, cancel := context.WithCancel(b.ctx)
	o := b.restoreOptions(c)
	o.Set, o.Type, o.TargetAction = label, RestoreImmediate, "promote"
	o.Progress = func(p Progress) {
		if p.FilesDone > 300 {
			cancel()
		}
	}
	if _, err := Restore(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled restore: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.data, "global", "pg_control")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("after a cancelled restore pg_control: %v", err)
	}
	o.Progress = nil
	if _, err := Restore(b.ctx, o); Code(err) != CodePathNotEmpty {
		t.Errorf("again without delta: %v", err)
	}
	o.Delta = true
	random(t, filepath.Join(c.data, "base", "1", "not-in-the-backup"), 10)
	os.Remove(filepath.Join(c.data, "PG_VERSION"))
	res, err := Restore(b.ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Kept < 200 {
		t.Errorf("the delta restore kept %d files", res.Kept)
	}
	if _, err := os.Stat(filepath.Join(c.data, "base", "1", "not-in-the-backup")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not in the backup is still there: %v", err)
	}
	if got := c.start().primary().sql("select count(*) from pgbench_accounts"); got != "100000" {
		t.Errorf("%s rows", got)
	}
	c.stop()
	out, err := b.try(pgBin+"pg_checksums", "--check", "-D", c.data)
	if err != nil {
		t.Errorf("pg_checksums: %v\n%s", err, out)
	}
}

// corruption: one flipped byte anywhere that counts makes restore and verify
// name the file.
func corruption(t *testing.T, b *bench, label string) {
	m, err := repo.LoadManifest(b.ctx, b.store, b.stanza, label)
	if err != nil {
		t.Fatal(err)
	}
	var inBundle, large *repo.File
	for i := range m.Files {
		f := &m.Files[i]
		if f.BundleID != 0 && f.SizeRepo > 100 && inBundle == nil {
			inBundle = f
		}
		if f.BundleID == 0 && f.Size > bundleLimit {
			large = f
		}
	}
	if inBundle == nil || large == nil {
		t.Fatal("the backup has no file in a bundle or no large one")
	}
	for n, f := range []*repo.File{inBundle, large} {
		name := repo.FilePath(b.stanza, label, f.Name, m.Option.Compress)
		if f.BundleID != 0 {
			name = repo.BundlePath(b.stanza, label, f.BundleID)
		}
		flip(t, b, name, f.BundleOffset+f.SizeRepo/2)
		o := b.restoreOptions(b.at("corrupt" + strconv.Itoa(n)))
		o.Set = label
		_, err := Restore(b.ctx, o)
		if Code(err) != CodeChecksum || !strings.Contains(err.Error(), f.Name) {
			t.Errorf("restore with %s damaged: %v", f.Name, err)
		}
		res, err := Verify(b.ctx, VerifyOptions{Storage: b.store, Stanza: b.stanza})
		if err != nil || len(res.Problems) != 1 || res.Problems[0].File != f.Name {
			t.Errorf("verify with %s damaged: %+v, %v", f.Name, res, err)
		}
		flip(t, b, name, f.BundleOffset+f.SizeRepo/2)
	}
}

func flip(t *testing.T, b *bench, name string, at int64) {
	t.Helper()
	data, err := blob.Get(b.ctx, b.store, name)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 1
	if err := b.store.Put(b.ctx, name, bytes.NewReader(data), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}
