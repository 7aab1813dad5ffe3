package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/blob"
	"manada/internal/repo"
)

// TestExport: Debian's pgbackrest restores the export of an incremental from a
// folder that was moved away, without the repository, and the cluster starts.
func TestExport(t *testing.T) {
	b := newBench(t)
	c := b.initdb("pg", b.walCommandText("push %p"))
	j := b.judge(c, "")
	c.start()
	c.stanzaCreate()
	c.run(pgBin+"pgbench", "-h", c.sock, "-U", "postgres", "-i", "-q", "-s", "1", "postgres")
	full := c.backup(repo.Full)
	c.sql("update pgbench_tellers set tbalance = tbalance + 1")
	diff := c.backup(repo.Diff)
	c.sql("update pgbench_tellers set tbalance = tbalance + 1")
	incr := c.backup(repo.Incr)
	c.sql("update pgbench_tellers set tbalance = tbalance + 1; create table later as select 1")
	c.backup(repo.Full)
	c.flush()

	dir := filepath.Join(b.dir, "out")
	res, err := Export(b.ctx, ExportOptions{Storage: b.store, Stanza: b.stanza, Set: incr.Label, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if res.Path != filepath.Join(dir, incr.Label) || !slices.Equal(res.Backups, []string{full.Label, diff.Label, incr.Label}) || res.WAL < 3 {
		t.Errorf("%+v", res)
	}
	if _, err := Export(b.ctx, ExportOptions{Storage: b.store, Stanza: b.stanza, Set: incr.Label, Dir: dir}); Code(err) != CodePathNotEmpty {
		t.Errorf("over an export that is there: %v", err)
	}
	srv := httptest.NewTLSServer(blob.Handler(b.store))
	defer srv.Close()
	far, err := blob.NewRemote(srv.URL, srv.Client()) // as from another host
	if err != nil {
		t.Fatal(err)
	}
	if newest, err := Export(b.ctx, ExportOptions{Storage: far, Stanza: b.stanza, Dir: dir}); err != nil || len(newest.Backups) != 1 || newest.Label <= incr.Label {
		t.Errorf("the newest: %+v, %v", newest, err)
	}
	c.stop()

	moved := filepath.Join(b.dir, "moved")
	if err := errors.Join(os.Rename(res.Path, moved), os.RemoveAll(b.store.Root())); err != nil {
		t.Fatal(err)
	}
	at := []string{"--repo1-path=" + moved}
	if out := j.do(append(at, "info")...); !strings.Contains(out, "status: ok") || strings.Count(out, " backup: ") != 3 {
		t.Errorf("pgbackrest info: %s", out)
	}
	if out := j.do(append(at, "verify")...); strings.Contains(strings.ToLower(out), "error") || strings.Contains(out, "missing") {
		t.Errorf("pgbackrest verify: %s", out)
	}
	to := b.at("restored")
	j.do(append(at, "--pg1-path="+to.data, "--type=immediate", "--target-action=promote", "--archive-mode=off", "restore")...)
	to.start().primary()
	if got := to.sql("select sum(tbalance) || ' ' || (to_regclass('later') is null) from pgbench_tellers"); got != "20 true" {
		t.Errorf("restored: %s", got)
	}
	to.stop()
}

// faulty fails to open the nth file.
type faulty struct {
	blob.Storage
	left int
}

var errBroken = errors.New("the cable is out")

func (f *faulty) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if f.left--; f.left < 0 {
		return nil, errBroken
	}
	return f.Storage.Open(ctx, name, off, n)
}

// An export that broke off leaves nothing that looks like one, and what a killed
// one has left is removed.
func TestExportInterrupted(t *testing.T) {
	b := newBench(t)
	c := b.initdb("pg", b.walCommandText("push %p"))
	c.start()
	c.stanzaCreate()
	res := c.backup(repo.Full)
	c.stop()
	dir := filepath.Join(b.dir, "out")
	o := ExportOptions{Storage: &faulty{b.store, 6}, Stanza: b.stanza, Dir: dir, Workers: 1}
	if _, err := Export(b.ctx, o); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
	killed := filepath.Join(dir, fmt.Sprintf(".%s.partial-1", res.Label))
	if err := os.MkdirAll(filepath.Join(killed, "backup"), 0o750); err != nil {
		t.Fatal(err)
	}
	o.Storage = b.store
	if _, err := Export(b.ctx, o); err != nil {
		t.Fatal(err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 || es[0].Name() != res.Label {
		t.Errorf("left: %v", es)
	}
	// A hole in the WAL is not exported.
	es, err := b.store.List(b.ctx, repo.ArchivePath(b.stanza), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if strings.Contains(e.Name, res.WALStop+"-") {
			if err := b.store.Delete(b.ctx, repo.ArchivePath(b.stanza, e.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	o.Dir = filepath.Join(b.dir, "out2")
	if _, err := Export(b.ctx, o); Code(err) != CodeFileMissing || !strings.Contains(err.Error(), res.WALStop) {
		t.Errorf("without %s: %v", res.WALStop, err)
	}
}

// What is not there is told as pgbackrest tells it.
func TestInfoOfNothing(t *testing.T) {
	b := newBench(t)
	j := b.judge(b.at("pg"), "")
	if err := os.MkdirAll(b.store.Root(), 0o750); err != nil {
		t.Fatal(err)
	}
	check := func(stanza string) {
		t.Helper()
		args := []string{"--config=" + j.conf, "info"}
		if stanza != "" {
			args = append(args, "--stanza="+stanza)
		}
		i, err := GetInfo(b.ctx, InfoOptions{Storage: b.store, Stanza: stanza})
		if err != nil {
			t.Fatal(err)
		}
		text, err := i.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if theirs, ours := j.run(pgbackrest, args...), i.Text(time.UTC); theirs != ours {
			t.Errorf("%q: %q, pgbackrest %q", stanza, ours, theirs)
		}
		if theirs := j.run(pgbackrest, append(args, "--output=json")...); theirs != string(text) {
			t.Errorf("%q: %s\npgbackrest %s", stanza, text, theirs)
		}
	}
	check("")
	check("demo")
	if err := StanzaCreate(b.ctx, b.store, "demo", Cluster{Version: "15", SystemID: 7, Catalog: 202209061, Control: 1300}, nil); err != nil {
		t.Fatal(err)
	}
	check("")
	check("other")
	if err := b.store.DeleteAll(b.ctx, repo.ArchivePath("demo", "15-1")); err != nil {
		t.Fatal(err)
	}
	check("demo")
}

// An export that does not fit is refused with what it takes, before anything is
// written.
func TestExportRoom(t *testing.T) {
	x := &export{ExportOptions: ExportOptions{Dir: t.TempDir()}, bytes: 1 << 55}
	if err := x.room(); Code(err) != CodeFileWrite || !strings.Contains(err.Error(), "left, and the export takes 34") {
		t.Error(err)
	}
}
