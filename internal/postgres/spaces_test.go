package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/guardian"
	"manada/internal/postgres/pgtest"
)

// That a node with tablespaces is cloned, rewound and made anew is seen on hosts
// of their own, in test/netns: two nodes of one machine cannot have the same path.

// On one machine a clone or a rewind never touches the tablespace of the node that
// runs on it.
func TestTablespaceOfANeighbourIsLeftAlone(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 90*time.Second)
	dir := filepath.Join(pgtest.Dir(t), "space")
	must(t, os.Mkdir(dir, 0o700))
	a.sql("create tablespace fast location " + literal(dir))
	a.sql("create table public.t tablespace fast as select g from generate_series(1, 1000) g")
	end := a.observe().Flushed
	until(t, "b has replayed it", func() bool { return b.observe().Replayed >= end })
	must(t, b.Stop(ctx, guardian.Fast, 10*time.Second))
	before := files(t, dir)
	for what, err := range map[string]error{
		"clone": b.Clone(ctx, a.source(1), nil), "rewind": b.Rewind(ctx, a.source(1), forkedAt(1), nil),
	} {
		if !errors.Is(err, ErrSpace) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "one machine") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if o := b.observe(); o.Poison != nil {
		t.Errorf("refused, and marked as half made: %+v", o.Poison)
	}
	a.sql("checkpoint")
	if v := a.sql("select count(*) from public.t"); v != "1000" {
		t.Errorf("%s rows are left on the running node", v)
	}
	if after := files(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		fmt.Fprintln(&b, path)
		return err
	}))
	return b.String()
}

// TestPlaceSpaces: what may be emptied, what is refused, and that nothing but what
// PostgreSQL has made there is.
func TestPlaceSpaces(t *testing.T) {
	n := newNode(t, "b")
	base := pgtest.Dir(t)
	at := func(name string) string { return filepath.Join(base, name) }
	put := func(path string) {
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	must(t, os.MkdirAll(filepath.Join(n.cfg.DataDir, "pg_tblspc"), 0o700))
	must(t, os.Symlink(at("own"), filepath.Join(n.cfg.DataDir, "pg_tblspc", "16384")))
	put(at("own/PG_15_202209061/5/1"))
	put(at("own/lost+found/kept"))
	put(at("own/.manada.clone/PG_15_202209061/5/half"))
	put(at("foreign/PG_15_202209061/5/1"))
	put(at("mount/lost+found/kept"))
	put(at("interrupted/PG_15_202209061/5/1"))
	for name, why := range map[string]string{"own": "", "new": "", "mount": "", "interrupted": "", "foreign": "not of this node's copy"} {
		own := n.ownSpaces(&Poison{Spaces: []string{at("interrupted")}})
		err := n.placeSpaces([]space{{"1", at(name)}}, own)
		if (err == nil) != (why == "") || err != nil && (!errors.Is(err, ErrSpace) || !strings.Contains(err.Error(), why)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := n.placeSpaces([]space{{"1", filepath.Join(n.cfg.DataDir, "inside")}}, nil); !errors.Is(err, ErrSpace) {
		t.Errorf("in the data directory: %v", err)
	}
	all := []space{{"16384", at("own")}, {"16385", at("a=b")}}
	must(t, n.emptySpaces(n.ownSpaces(nil), all))
	for path, want := range map[string]bool{
		"own/PG_15_202209061": false, "own/.manada.clone": false, "own/lost+found/kept": true, "foreign/PG_15_202209061/5/1": true,
	} {
		if _, err := os.Stat(at(path)); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got := spaceArgs(all[1:])[0]; got != `--tablespace-mapping=`+base+`/a\=b=`+base+`/a\=b/.manada.clone` {
		t.Error(got)
	}
	// As pg_basebackup leaves it.
	put(at("own/.manada.clone/PG_15_202209061/5/2"))
	must(t, os.Remove(filepath.Join(n.cfg.DataDir, "pg_tblspc", "16384")))
	must(t, os.Symlink(at("own/.manada.clone"), filepath.Join(n.cfg.DataDir, "pg_tblspc", "16384")))
	must(t, settleSpaces(n.cfg.DataDir, all[:1]))
	if _, err := os.Stat(filepath.Join(n.cfg.DataDir, "pg_tblspc", "16384", "PG_15_202209061", "5", "2")); err != nil {
		t.Error(err)
	}
	if link, _ := os.Readlink(filepath.Join(n.cfg.DataDir, "pg_tblspc", "16384")); link != at("own") {
		t.Errorf("the link leads to %s", link)
	}
}
