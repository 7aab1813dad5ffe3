package backup

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"manada/internal/repo"
)

// treeHash is of all that lies below directories: names, kinds, inodes, contents.
func treeHash(t *testing.T, dirs ...string) string {
	t.Helper()
	h := sha256.New()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			fmt.Fprintln(h, p, st.Mode(), st.ModTime(), st.Size())
			if d.Type().IsRegular() {
				b, err := os.ReadFile(p)
				h.Write(b)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func mkdirs(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTablespaces: a cluster with two tablespaces that runs on, copies of it
// beside, and it itself restored.
func TestTablespaces(t *testing.T) {
	b := newBench(t)
	live := b.initdb("pg", b.walCommandText("push %p"))
	live.stanzaCreate()
	live.start()
	one, two := filepath.Join(b.dir, "one"), filepath.Join(b.dir, "two")
	mkdirs(t, one, two)
	live.sql("create tablespace sp1 location '" + one + "'")
	live.sql("create tablespace sp2 location '" + two + "'")
	live.sql("create table t1 tablespace sp1 as select g from generate_series(1, 20000) g; create table t2 tablespace sp2 as select g from generate_series(1, 500) g")
	full := live.backup(repo.Full)
	live.sql("insert into t1 select 1 from generate_series(1, 1000); create table t3 tablespace sp2 as select 3 as g")
	live.backup(repo.Incr)
	live.sql("insert into t2 values (7)")
	live.flush()
	live.sql("checkpoint")
	want := live.content("t1", "t2", "t3")
	before := treeHash(t, one, two)
	untouched := func(what string) {
		t.Helper()
		if treeHash(t, one, two) != before {
			t.Fatalf("%s has changed the tablespaces of the running cluster", what)
		}
	}

	t.Run("refused", func(t *testing.T) { spacesRefused(t, b, live, untouched) })
	t.Run("copy", func(t *testing.T) { spacesCopied(t, b, full.Label, want, untouched) })
	t.Run("created later", func(t *testing.T) { spaceCreatedLater(t, b, live) })
	t.Run("itself", func(t *testing.T) {
		live.sql("drop table t3; create table t4 tablespace sp1 as select 4 as g; checkpoint")
		live.flush()
		live.stop()
		b.restore(live, func(o *RestoreOptions) {
			o.Delta, o.Locked, o.Set, o.TargetAction = true, true, full.Label, "promote"
			o.RecoveryOptions = map[string]string{"archive-mode": "off"}
		})
		if got := live.start().primary().content("t1", "t2", "t4"); !strings.Contains(got, "t4=1:") {
			t.Errorf("restored over itself: %s", got)
		}
		if got := live.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'sp1'"); got != one {
			t.Errorf("its tablespace is in %s", got)
		}
		live.stop()
	})
}

// spacesRefused: nothing is restored into a directory that is in use, or has
// something in it, whatever is asked for, and no hint proposes to.
func spacesRefused(t *testing.T, b *bench, live *pgCluster, untouched func(string)) {
	full := filepath.Join(b.dir, "full")
	mkdirs(t, full)
	random(t, filepath.Join(full, "letters.txt"), 10)
	free := func(n string) string { return filepath.Join(b.dir, "free"+n) }
	for name, change := range map[string]func(*RestoreOptions){
		"where it was": func(*RestoreOptions) {},
		"in the data": func(o *RestoreOptions) {
			o.TablespaceMap = map[string]string{"sp1": live.data + "/x", "sp2": free("2")}
		},
		"above the data":  func(o *RestoreOptions) { o.TablespaceMap = map[string]string{"sp1": b.dir, "sp2": free("2")} },
		"in a tablespace": func(o *RestoreOptions) { o.TablespaceMapAll = filepath.Join(b.dir, "one") },
		"through a link":  func(o *RestoreOptions) { os.Symlink(b.dir, free("l")); o.TablespaceMapAll = free("l") + "/two/x" },
		"in one another": func(o *RestoreOptions) {
			o.TablespaceMap = map[string]string{"sp1": free("1"), "sp2": free("1") + "/x"}
		},
		"not empty":           func(o *RestoreOptions) { o.TablespaceMap = map[string]string{"sp1": full, "sp2": free("2")} },
		"relative":            func(o *RestoreOptions) { o.TablespaceMap = map[string]string{"sp1": "x", "sp2": free("2")} },
		"no such tablespace":  func(o *RestoreOptions) { o.TablespaceMap = map[string]string{"sp3": free("1")} },
		"the data of another": func(o *RestoreOptions) { o.TablespaceMapAll = free("1"); o.Dir = live.data + "/copy" },
		"another, not running": func(o *RestoreOptions) {
			o.TablespaceMapAll = free("1")
			o.Dir, o.Others = free("3")+"/x", []string{free("3")}
		},
	} {
		for _, delta := range []bool{false, true} {
			o := b.restoreOptions(b.at("refused"))
			o.Delta, o.Force = delta, delta
			change(&o)
			_, err := Restore(b.ctx, o)
			if c := Code(err); c != CodePathNotEmpty && c != CodeTablespaceMap || strings.Contains(err.Error(), "delta") {
				t.Errorf("%s, delta %v: %v", name, delta, err)
			}
			untouched(name)
			if _, err := os.Stat(o.Dir); err == nil {
				t.Errorf("%s: %s was made", name, o.Dir)
			}
		}
	}
}

// spacesCopied: the copy has its tablespaces where they were mapped to, also
// after it was started; what is done in it does nothing to the original; a delta
// over it keeps to its own, and is refused when its links lead to the original.
func spacesCopied(t *testing.T, b *bench, full, want string, untouched func(string)) {
	c := b.at("copy")
	to := func(set string, delta bool) func(*RestoreOptions) {
		return func(o *RestoreOptions) {
			o.Set, o.Delta = set, delta
			o.TablespaceMap = map[string]string{"sp1": filepath.Join(b.dir, "c1"), "sp2": filepath.Join(b.dir, "c2")}
			o.RecoveryOptions = map[string]string{"archive-mode": "off"}
		}
	}
	dry := b.restoreOptions(c)
	to("", false)(&dry)
	dry.DryRun = true
	res, err := Restore(b.ctx, dry)
	if err != nil || len(res.Spaces) != 2 || !slices.Contains(res.Spaces, RestoredSpace{"sp1", filepath.Join(b.dir, "one"), filepath.Join(b.dir, "c1")}) || exists(c.data) || exists(filepath.Join(b.dir, "c1")) {
		t.Fatalf("dry run: %+v, %v", res, err)
	}
	check := func() {
		t.Helper()
		if exists(filepath.Join(c.data, "tablespace_map")) {
			t.Error("tablespace_map was restored")
		}
		if got := c.start().primary().content("t1", "t2", "t3"); got != want {
			t.Errorf("the copy has %s\nwant %s", got, want)
		}
		for name, dir := range map[string]string{"sp1": "c1", "sp2": "c2"} {
			if got := c.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = '" + name + "'"); got != filepath.Join(b.dir, dir) {
				t.Errorf("%s of the copy is in %s", name, got)
			}
		}
		c.sql("drop table t1; drop table t2; checkpoint")
		c.stop()
		untouched("what was done in the copy")
	}
	b.restore(c, to("", false))
	check()
	res = b.restore(c, to(full, true))
	if res.Kept < 200 {
		t.Errorf("a delta kept %d files", res.Kept)
	}
	check()
	links, _ := filepath.Glob(filepath.Join(c.data, "pg_tblspc", "*"))
	for _, l := range links {
		dst, _ := os.Readlink(l)
		os.Remove(l)
		os.Symlink(map[string]string{"c1": filepath.Join(b.dir, "one"), "c2": filepath.Join(b.dir, "two")}[filepath.Base(dst)], l)
	}
	o := b.restoreOptions(c)
	o.Delta = true
	if _, err := Restore(b.ctx, o); Code(err) != CodePathNotEmpty {
		t.Errorf("over a copy whose links lead to the original: %v", err)
	}
	untouched("a delta over it")
}

// spaceCreatedLater: replay would make the tablespace where it is, which is in
// the files of the running cluster.
func spaceCreatedLater(t *testing.T, b *bench, live *pgCluster) {
	three := filepath.Join(b.dir, "three")
	mkdirs(t, three)
	live.sql("create tablespace sp3 location '" + three + "'")
	defer live.sql("drop tablespace sp3")
	o := b.restoreOptions(b.at("later"))
	o.TablespaceMapAll = filepath.Join(b.dir, "latersp")
	if _, err := Restore(b.ctx, o); Code(err) != CodeTablespaceMap || !strings.Contains(err.Error(), three) {
		t.Errorf("recovery over the creation of a tablespace of a running cluster: %v", err)
	}
	o.DryRun, o.Type = true, RestoreImmediate
	if _, err := Restore(b.ctx, o); err != nil {
		t.Errorf("to the end of the backup: %v", err)
	}
}
