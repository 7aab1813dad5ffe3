package backup

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"manada/internal/blob"
	"manada/internal/repo"
)

// TestForeignRepository: backups that pgbackrest 2.45 wrote, in its several
// forms, are restored by us, and our incr continues one of them.
func TestForeignRepository(t *testing.T) {
	b := newBench(t)
	c := b.at("pg")
	j := b.judge(c, "compress-type=gz")
	b.initdb("pg", j.archiveCommand())
	c.start()
	c.run(pgBin+"pgbench", "-h", c.sock, "-U", "postgres", "-i", "-q", "-s", "1", "postgres")
	c.sql(`create database "[backrest]"`)
	space := filepath.Join(b.dir, "space")
	mkdirs(t, space)
	c.sql("create tablespace fast location '" + space + "'")
	c.sql("create table inspace tablespace fast as select g from generate_series(1, 500) g")
	random(t, filepath.Join(c.data, `odd\name`), 100)
	random(t, filepath.Join(c.data, `large\name`), bundleLimit+1)
	random(t, filepath.Join(c.data, "base", "1", "core"), 5000) // junk: no pages in it
	j.do("stanza-create")
	for _, form := range [][]string{
		{"--type=full", "--compress-type=zst", "--repo1-bundle"},
		{"--type=full", "--compress-type=gz"},
		{"--type=incr", "--compress-type=gz", "--repo1-bundle"},
	} {
		j.do(append([]string{"backup", "--no-archive-check"}, form...)...)
		c.sql("update pgbench_tellers set tbalance = tbalance + 1")
	}
	res := c.backup(repo.Incr)
	if !strings.Contains(strings.Join(res.Notices, "\n"), "compress-type is gz") || res.Type != repo.Incr || res.Copied > res.Size/2 {
		t.Errorf("our incr of their backup: %+v", res)
	}
	if res.PageErrs != 0 {
		t.Errorf("junk counts as damaged pages: %q", res.Notices)
	}
	c.flush()
	c.stop()
	checkInfo(t, b, j)
	theirs := b.at("theirs")
	b.judge(theirs, "").do("restore", "--type=immediate", "--target-action=promote", "--archive-mode=off", "--tablespace-map-all="+theirs.data+"-spaces")
	if got := theirs.start().primary().sql("select sum(tbalance) from pgbench_tellers"); got != "30" {
		t.Errorf("our incr, restored by pgbackrest: sum %s", got)
	}
	theirs.stop()
	for n, l := range labels(t, b) {
		if n == 1 {
			continue // most of its files are restored with the incr
		}
		to := b.at("r" + l)
		b.restore(to, func(o *RestoreOptions) {
			o.Set, o.Type = l, RestoreImmediate
			o.RecoveryOptions = map[string]string{"archive-mode": "off"}
			o.TablespaceMapAll = to.data + "-spaces"
		})
		to.start().primary()
		for _, f := range []string{`odd\name`, `large\name`} {
			if !sameFile(t, filepath.Join(c.data, f), filepath.Join(to.data, f)) {
				t.Errorf("%s: %s is another", l, f)
			}
		}
		if got := to.sql("select count(*) from inspace") + to.sql("select count(*) from pg_database where datname = '[backrest]'"); got != "5001" {
			t.Errorf("%s: %s", l, got)
		}
		if got := to.sql("select sum(tbalance) from pgbench_tellers"); got != []string{"0", "10", "20", "30"}[n] {
			t.Errorf("%s: sum %s", l, got)
		}
		to.stop()
	}
	if out := j.do("verify"); strings.Contains(strings.ToLower(out), "error") || strings.Contains(out, "invalid") {
		t.Errorf("pgbackrest verify: %s", out)
	}
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err != nil || err2 != nil {
		t.Error(err, err2)
	}
	return bytes.Equal(x, y)
}

// TestKilledAnywhere: whatever the repository held when a backup or an expire of
// it died, only whole backups are found in it.
func TestKilledAnywhere(t *testing.T) {
	b := newBench(t)
	c := b.initdb("pg", "true")
	c.start()
	id, err := ReadCluster(b.ctx, c.data)
	if err != nil {
		t.Fatal(err)
	}
	m := blob.NewMem()
	var snaps []*blob.Mem
	m.Fault = func(op blob.Op, _ string) error {
		if op == blob.OpPut || op == blob.OpDelete || op == blob.OpLink {
			snaps = append(snaps, m.Snapshot())
		}
		return nil
	}
	// Through the HTTP client and server, as to a repository host.
	srv := httptest.NewTLSServer(blob.Handler(m))
	defer srv.Close()
	s, err := blob.NewRemote(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	if err := StanzaCreate(b.ctx, s, "demo", id, nil); err != nil {
		t.Fatal(err)
	}
	o := c.options(repo.Full)
	o.Storage, o.NoArchiveCheck, o.Workers = s, true, 1
	if _, err := Backup(b.ctx, o); err != nil {
		t.Fatal(err)
	}
	c.sql("create table t as select g from generate_series(1, 1000) g; checkpoint")
	o.Type = repo.Incr
	if _, err := Backup(b.ctx, o); err != nil {
		t.Fatal(err)
	}
	o.Type, o.Retention = repo.Full, &Retention{Full: 1}
	res, err := Backup(b.ctx, o)
	if err != nil || res.Expired == nil || len(res.Expired.Backups) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	checkSnapshots(t, b, append(snaps, m.Snapshot()))
}

// checkSnapshots brings every snapshot in order as the next command would, and
// reads all of the backups that it then has: in the first and in the last
// snapshot of each state, as nothing is deleted between that was not there.
func checkSnapshots(t *testing.T, b *bench, snaps []*blob.Mem) {
	var states []string
	counts := map[int]int{}
	for n, snap := range snaps {
		info, err := repo.LoadBackupInfo(b.ctx, snap, "demo")
		if isNotExist(err) && n <= 4 { // before the stanza was there
			states = append(states, "none")
			continue
		}
		if err != nil {
			t.Fatalf("snapshot %d: %v", n, err)
		}
		if _, err := reconcile(b.ctx, snap, "demo", info, func(string) {}); err != nil {
			t.Fatalf("snapshot %d: %v", n, err)
		}
		if err := repo.SaveBackupInfo(b.ctx, snap, "demo", info); err != nil {
			t.Fatal(err)
		}
		state := ""
		for _, e := range info.Backups {
			state += e.Label + " "
		}
		states = append(states, state)
		counts[len(info.Backups)]++
	}
	for n, state := range states {
		if state == "" || state == "none" || n > 0 && n < len(states)-1 && states[n-1] == state && states[n+1] == state {
			continue
		}
		v, err := Verify(b.ctx, VerifyOptions{Storage: snaps[n], Stanza: "demo"})
		if err != nil {
			t.Fatalf("snapshot %d: %v", n, err)
		}
		for _, p := range v.Problems {
			if p.Label != "" { // this cluster archives nothing
				t.Errorf("snapshot %d: %s", n, p)
			}
		}
	}
	if len(snaps) < 20 || counts[0] == 0 || counts[1] == 0 || counts[2] == 0 || counts[3] == 0 {
		t.Errorf("%d snapshots, by backups %v", len(snaps), counts)
	}
}
