package backup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"manada/internal/repo"
)

var benchTables = []string{"pgbench_accounts", "pgbench_tellers", "pgbench_branches", "words", "inspace"}

// fill makes a database with a large table, a tablespace, an unlogged table.
func (c *pgCluster) fill() {
	c.t.Helper()
	ts := filepath.Join(c.dir, "ts-"+filepath.Base(c.data))
	if err := os.Mkdir(ts, 0o700); err != nil {
		c.t.Fatal(err)
	}
	c.sql("create tablespace fast location '" + ts + "'")
	c.run(pgBin+"pgbench", "-h", c.sock, "-U", "postgres", "-i", "-q", "-s", "1", "postgres")
	c.sql(`create table words as select g as id, md5(g::text) as word from generate_series(1, 20000) g;
		create table inspace tablespace fast as select g as id from generate_series(1, 5000) g;
		create unlogged table unlogged_t as select 1 as a;
		create table empty_t(a int)`)
}

func (c *pgCluster) write(n int) {
	c.t.Helper()
	c.sql(strings.ReplaceAll(`update pgbench_accounts set abalance = abalance + N where aid % 1000 = N;
		insert into inspace select g from generate_series(1, 100 * N) g; update pgbench_tellers set tbalance = N`, "N", string(rune('0'+n))))
}

// TestRoundTrip: full, diff and incr with writes between, restored by us and by
// pgbackrest 2.45, which also accepts the repository; then an incr on the new
// timeline of the restored cluster.
func TestRoundTrip(t *testing.T) {
	b := newBench(t)
	c := b.initdb("pg", b.walCommandText("push %p"))
	c.stanzaCreate()
	c.start()
	c.fill()
	var last Progress
	o := c.options(repo.Full)
	o.Progress = func(p Progress) { last = p }
	o.Annotations = map[string]string{"why": "test"}
	full, err := Backup(b.ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if last.Phase != PhaseDone || last.BytesDone != last.BytesTotal || last.FilesDone != last.FilesTotal || last.BytesTotal == 0 {
		t.Errorf("progress ended with %+v", last)
	}
	if len(full.Notices) != 0 || full.PageErrs != 0 {
		t.Errorf("notices of a full backup: %q", full.Notices)
	}
	c.write(1)
	diff := c.backup(repo.Diff)
	c.write(2)
	incr := c.backup(repo.Incr)
	if diff.Prior != full.Label || incr.Prior != diff.Label || diff.Copied >= full.Copied/2 {
		t.Errorf("full %+v\ndiff %+v\nincr %+v", full, diff, incr)
	}
	c.write(3)
	c.flush()
	want := c.content(benchTables...)
	c.stop()

	j := b.judge(c, "repo1-retention-full=2")
	checkInfo(t, b, j)
	if out := j.do("verify"); strings.Contains(strings.ToLower(out), "error") || strings.Contains(out, "invalid") {
		t.Errorf("pgbackrest verify: %s", out)
	}
	res, err := Verify(b.ctx, VerifyOptions{Storage: b.store, Stanza: b.stanza})
	if err != nil || len(res.Problems) != 0 || res.Backups != 3 || res.WAL == 0 {
		t.Errorf("verify: %+v, %v", res, err)
	}

	theirs := b.at("theirs")
	j2 := b.judge(theirs, "")
	j2.do("restore", "--tablespace-map-all="+filepath.Join(b.dir, "tst"), "--archive-mode=off")
	if got := theirs.start().primary().content(benchTables...); got != want {
		t.Errorf("restored by pgbackrest: %s\nwant %s", got, want)
	}
	theirs.stop()

	ours := b.at("ours")
	b.restore(ours, func(o *RestoreOptions) { o.TablespaceMapAll = filepath.Join(b.dir, "tso") })
	ours.start().primary()
	if got := ours.content(benchTables...); got != want {
		t.Errorf("restored by us: %s\nwant %s", got, want)
	}
	if got := ours.content("unlogged_t", "empty_t"); got != "unlogged_t=0:0 empty_t=0:0" {
		t.Errorf("unlogged and empty tables: %s", got)
	}
	timelineSwitch(t, b, ours)
}

// timelineSwitch: after a promotion sizes and times do not decide, but what has
// not changed is still not copied.
func timelineSwitch(t *testing.T, b *bench, c *pgCluster) {
	c.write(4)
	want := c.content(benchTables...)
	res := c.backup(repo.Incr)
	if !strings.Contains(strings.Join(res.Notices, "\n"), "timeline") {
		t.Errorf("no notice of the timeline switch: %q", res.Notices)
	}
	if res.Copied > res.Size/2 {
		t.Errorf("%d of %d bytes were copied after a timeline switch", res.Copied, res.Size)
	}
	c.stop()
	again := b.at("again")
	b.restore(again, func(o *RestoreOptions) { o.TablespaceMapAll = filepath.Join(b.dir, "tsa") })
	if got := again.start().primary().content(benchTables...); got != want {
		t.Errorf("restored from an incr after a timeline switch: %s\nwant %s", got, want)
	}
}

// checkInfo: pgbackrest and we say the same of the repository.
func checkInfo(t *testing.T, b *bench, j *judge) {
	t.Helper()
	sets := []string{""}
	for _, l := range labels(t, b) {
		sets = append(sets, l)
	}
	for _, set := range sets {
		args := []string{"info"}
		if set != "" {
			args = append(args, "--set="+set)
		}
		i, err := GetInfo(b.ctx, InfoOptions{Storage: b.store, Stanza: b.stanza, Set: set})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(j.do(args...), i.Text(time.UTC)); d != "" {
			t.Errorf("info %s differs (-pgbackrest +ours): %s", set, d)
		}
		var theirs, ours any
		if err := json.Unmarshal([]byte(j.do(append(args, "--output=json")...)), &theirs); err != nil {
			t.Fatal(err)
		}
		text, err := i.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &ours); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(theirs, ours); d != "" {
			t.Errorf("info %s --output=json differs (-pgbackrest +ours): %s", set, d)
		}
	}
}
