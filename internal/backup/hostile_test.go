package backup

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"manada/internal/blob"
	"manada/internal/repo"
)

// forged is a repository with one small backup that change has made of.
func forged(t rapid.TB, change func(m *repo.Manifest, store func(name, content string) repo.File)) *blob.Mem {
	t.Helper()
	ctx, s := context.Background(), blob.NewMem()
	const label = "20260101-000000F"
	store := func(name, content string) repo.File {
		sum := sha1.Sum([]byte(content))
		// A name that no repository takes has no stored file.
		_ = s.Put(ctx, repo.FilePath("demo", label, name, repo.None), bytes.NewReader([]byte(content)), blob.PutOptions{})
		return repo.File{Name: name, Size: int64(len(content)), SizeOriginal: int64(len(content)), SizeRepo: int64(len(content)), SHA1: hex.EncodeToString(sum[:]), Mode: 0o600}
	}
	db := repo.DB{ID: 1, SystemID: 7, Version: "15", Catalog: 202209061, Control: 1300}
	m := &repo.Manifest{Label: label, Type: repo.Full, DB: db, References: []string{label}, Option: repo.ManifestOption{Compress: repo.None},
		PathDefault: repo.Default{User: "postgres", Group: "postgres", Mode: 0o700}, FileDefault: repo.Default{User: "postgres", Group: "postgres", Mode: 0o600}}
	m.Targets = []repo.Target{{Name: "pg_data", Path: "/srv/pg"}}
	for _, p := range []string{"pg_data", "pg_data/base", "pg_data/global", "pg_data/pg_tblspc"} {
		m.Paths = append(m.Paths, repo.Path{Name: p, Mode: 0o700})
	}
	m.Files = []repo.File{store("pg_data/PG_VERSION", "15\n"), store("pg_data/base/a", "content"), store("pg_data/global/pg_control", "control")}
	entry := m.Entry()
	change(m, store)
	data, err := m.Render()
	if err != nil {
		return nil // cannot even be written
	}
	info := &repo.BackupInfo{Current: 1, History: []repo.DB{db}}
	info.Add(entry)
	if err := repo.SaveBackupInfo(ctx, s, "demo", info); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", repo.CopySuffix} {
		if err := s.Put(ctx, repo.BackupPath("demo", label, repo.ManifestFile+suffix), bytes.NewReader(data), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// outside is a folder in which a restore may write to restored and space only.
type outside struct{ dir, restored, space, before string }

func newOutside(t *testing.T) *outside {
	d := t.TempDir()
	o := &outside{dir: filepath.Join(d, "precious"), restored: filepath.Join(d, "restored"), space: filepath.Join(d, "space")}
	mkdirs(t, filepath.Join(o.dir, "base"))
	for _, f := range []string{"PG_VERSION", "base/a", "evil"} {
		if err := os.WriteFile(filepath.Join(o.dir, f), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.before = treeHash(t, o.dir)
	return o
}

func (o *outside) options(s *blob.Mem) RestoreOptions {
	return RestoreOptions{Storage: s, Stanza: "demo", Dir: o.restored, Type: RestoreNone, TablespaceMap: map[string]string{}}
}

// fresh empties what a restore may write to, and makes sure that nothing else
// has changed.
func (o *outside) fresh(t *testing.T, what string) {
	t.Helper()
	if treeHash(t, o.dir) != o.before {
		t.Fatalf("%s: written outside of the targets", what)
	}
	es, _ := os.ReadDir(filepath.Dir(o.dir))
	for _, e := range es {
		if p := filepath.Join(filepath.Dir(o.dir), e.Name()); p != o.dir {
			if p != o.restored && p != o.space {
				t.Errorf("%s: made %s", what, p)
			}
			os.RemoveAll(p)
		}
	}
}

// TestHostileManifest: what a forged manifest names outside of its targets is
// refused, and nothing there is touched.
func TestHostileManifest(t *testing.T) {
	o := newOutside(t)
	file := func(name string) func(*repo.Manifest, func(string, string) repo.File) {
		return func(m *repo.Manifest, store func(string, string) repo.File) {
			m.Files = append(m.Files, store(name, "evil"))
		}
	}
	path := func(name string) func(*repo.Manifest, func(string, string) repo.File) {
		return func(m *repo.Manifest, _ func(string, string) repo.File) {
			m.Paths = append(m.Paths, repo.Path{Name: name, Mode: 0o777})
		}
	}
	target := func(x repo.Target) func(*repo.Manifest, func(string, string) repo.File) {
		return func(m *repo.Manifest, store func(string, string) repo.File) {
			m.Targets = append(m.Targets, x)
			m.Files = append(m.Files, store(x.Name+"/evil", "evil"))
		}
	}
	first := func(f func(*repo.File)) func(*repo.Manifest, func(string, string) repo.File) {
		return func(m *repo.Manifest, _ func(string, string) repo.File) { f(&m.Files[1]) }
	}
	for name, change := range map[string]func(*repo.Manifest, func(string, string) repo.File){
		"file above":             file("pg_data/../precious/evil"),
		"file absolute":          file("/" + o.dir + "/evil"),
		"file of no target":      file("precious/evil"),
		"file of no tablespace":  file("pg_tblspc/16384/PG_15_202209061/5/1"),
		"file through pg_tblspc": file("pg_data/pg_tblspc/16384/x"),
		"file twice":             file("pg_data/PG_VERSION"),
		"file with a null":       file("pg_data/x\x00y"),
		"directory above":        path("pg_data/base/../../precious/d"),
		"directory absolute":     path(o.dir + "/d"),
		"directory in pg_tblspc": path("pg_data/pg_tblspc/16384"),
		"oid that leads out":     target(repo.Target{Name: "pg_tblspc/../../precious", TablespaceID: "../../precious", TablespaceName: "x", Path: o.space, Link: true}),
		"oid of a name":          target(repo.Target{Name: "pg_tblspc/16384", TablespaceID: "16385", TablespaceName: "x", Path: o.space, Link: true}),
		"oid with a sign":        target(repo.Target{Name: "pg_tblspc/+16384", TablespaceID: "+16384", TablespaceName: "x", Path: o.space, Link: true}),
		"oid too large":          target(repo.Target{Name: "pg_tblspc/4294967296", TablespaceID: "4294967296", TablespaceName: "x", Path: o.space, Link: true}),
		"space beside its PG_":   target(repo.Target{Name: "pg_tblspc/16384", TablespaceID: "16384", TablespaceName: "x", Path: o.space, Link: true}),
		"space that is precious": func(m *repo.Manifest, _ func(string, string) repo.File) {
			m.Targets = append(m.Targets, repo.Target{Name: "pg_tblspc/16384", TablespaceID: "16384", TablespaceName: "x", Path: o.dir, Link: true})
		},
		"space with a way out": target(repo.Target{Name: "pg_tblspc/16384", TablespaceID: "16384", TablespaceName: "x", Path: o.space + "/../precious", Link: true}),
		"link above":           target(repo.Target{Name: "pg_data/../x", Path: o.dir, Link: true}),
		"link that is precious": func(m *repo.Manifest, _ func(string, string) repo.File) {
			m.Targets = append(m.Targets, repo.Target{Name: "pg_data/l", Path: o.dir, Link: true})
		},
		"link to a precious file": func(m *repo.Manifest, store func(string, string) repo.File) {
			m.Targets = append(m.Targets, repo.Target{Name: "pg_data/l", Path: o.dir, File: "evil", Link: true})
			m.Files = append(m.Files, store("pg_data/l", "evil"))
		},
		"link to a path":         target(repo.Target{Name: "pg_data/l", Path: o.space, File: "../precious/evil", Link: true}),
		"link in pg_tblspc":      target(repo.Target{Name: "pg_data/pg_tblspc/1", Path: o.space, Link: true}),
		"target twice":           func(m *repo.Manifest, _ func(string, string) repo.File) { m.Targets = append(m.Targets, m.Targets[0]) },
		"version":                func(m *repo.Manifest, _ func(string, string) repo.File) { m.DB.Version = "15/../../x" },
		"size below zero":        first(func(f *repo.File) { f.Size = -1 }),
		"stored size below zero": first(func(f *repo.File) { f.SizeRepo = -1 }),
		"offset below zero":      first(func(f *repo.File) { f.BundleID, f.BundleOffset = 1, -1 }),
		"end past all numbers":   first(func(f *repo.File) { f.BundleID, f.BundleOffset, f.SizeRepo = 1, 1<<62, 1<<62 }),
		"reference":              first(func(f *repo.File) { f.Reference = "../../../precious" }),
		"references":             func(m *repo.Manifest, _ func(string, string) repo.File) { m.References = []string{"../x", m.Label} },
		"no checksum":            first(func(f *repo.File) { f.SHA1 = "" }),
		"more than it says":      first(func(f *repo.File) { f.Size = 1 }),
	} {
		s := forged(t, change)
		if s == nil {
			continue
		}
		for _, all := range []bool{false, true} {
			ro := o.options(s)
			ro.LinkAll, ro.Delta = all, all
			_, err := Restore(t.Context(), ro)
			if err == nil && !(!all && len(name) > 4 && name[:4] == "link") { // without --link-all a link is a part of PGDATA
				t.Errorf("%s, with links %v: accepted", name, all)
			}
			o.fresh(t, name)
		}
	}
	if _, err := Restore(t.Context(), o.options(forged(t, func(*repo.Manifest, func(string, string) repo.File) {}))); err != nil {
		t.Errorf("without a change: %v", err)
	}
}

// TestLinksLeadNowhere: symbolic and hard links that lie in the directories of a
// restore do not make it write, or delete, somewhere else.
func TestLinksLeadNowhere(t *testing.T) {
	o := newOutside(t)
	s := forged(t, func(m *repo.Manifest, store func(string, string) repo.File) {
		m.Targets = append(m.Targets, repo.Target{Name: "pg_tblspc/16384", TablespaceID: "16384", TablespaceName: "x", Path: o.space, Link: true})
		for _, p := range []string{"pg_tblspc", "pg_tblspc/16384", "pg_tblspc/16384/PG_15_202209061", "pg_tblspc/16384/PG_15_202209061/5"} {
			m.Paths = append(m.Paths, repo.Path{Name: p, Mode: 0o700})
		}
		m.Files = append(m.Files, store("pg_tblspc/16384/PG_15_202209061/5/1", "in space"))
	})
	for name, plant := range map[string]func() error{
		"a directory":        func() error { return os.Symlink(o.dir+"/base", o.restored+"/base") },
		"a file":             func() error { return os.Symlink(o.dir+"/PG_VERSION", o.restored+"/PG_VERSION") },
		"the manifest":       func() error { return os.Symlink(o.dir+"/evil", o.restored+"/backup.manifest") },
		"a file, hard":       func() error { return os.Link(o.dir+"/PG_VERSION", o.restored+"/PG_VERSION") },
		"pg_tblspc":          func() error { return os.Symlink(o.dir, o.restored+"/pg_tblspc") },
		"the space's folder": func() error { return os.Symlink(o.dir, o.space+"/PG_15_202209061") },
		"in the space": func() error {
			mkdirs(t, o.space+"/PG_15_202209061")
			return os.Symlink(o.dir, o.space+"/PG_15_202209061/5")
		},
	} {
		mkdirs(t, o.restored, o.space)
		if name != "pg_tblspc" {
			mkdirs(t, o.restored+"/pg_tblspc")
			if err := os.Symlink(o.space, o.restored+"/pg_tblspc/16384"); err != nil {
				t.Fatal(err)
			}
		}
		if name != "a file" && name != "a file, hard" {
			os.WriteFile(o.restored+"/PG_VERSION", []byte("15\n"), 0o600)
		}
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		ro := o.options(s)
		ro.Delta = true
		if _, err := Restore(t.Context(), ro); err != nil {
			t.Logf("%s: refused: %v", name, err)
		} else if b, err := os.ReadFile(o.space + "/PG_15_202209061/5/1"); string(b) != "in space" {
			t.Errorf("%s: not restored: %q, %v", name, b, err)
		}
		o.fresh(t, name)
	}
}

// TestForgedNames: whatever names, ids and numbers a manifest has, nothing
// outside of the targets is touched.
func TestForgedNames(t *testing.T) {
	o := newOutside(t)
	part := rapid.SampledFrom([]string{"..", ".", "", "pg_data", "pg_tblspc", "16384", "PG_15_202209061", "5", "1", "base", "precious", "evil", "a", o.dir, "/", "global", "\x00", "\\", "pg_control", "l"})
	name := rapid.Custom(func(t *rapid.T) string {
		out := rapid.SampledFrom([]string{"pg_data/", "pg_tblspc/", "pg_data/pg_tblspc/", "/", ""}).Draw(t, "begin")
		for i := range rapid.IntRange(0, 4).Draw(t, "parts") {
			if i > 0 {
				out += "/"
			}
			out += part.Draw(t, "part")
		}
		return out
	})
	rapid.Check(t, func(rt *rapid.T) {
		s := forged(rt, func(m *repo.Manifest, store func(string, string) repo.File) {
			for range rapid.IntRange(0, 2).Draw(rt, "files") {
				m.Files = append(m.Files, store(name.Draw(rt, "file"), "evil"))
			}
			for range rapid.IntRange(0, 2).Draw(rt, "dirs") {
				m.Paths = append(m.Paths, repo.Path{Name: name.Draw(rt, "dir"), Mode: 0o700})
			}
			for range rapid.IntRange(0, 2).Draw(rt, "links") {
				m.Links = append(m.Links, repo.Link{Name: name.Draw(rt, "link"), Destination: name.Draw(rt, "destination")})
			}
			for range rapid.IntRange(0, 2).Draw(rt, "targets") {
				x := repo.Target{Name: name.Draw(rt, "target"), Path: rapid.SampledFrom([]string{o.space, o.dir, o.restored, o.space + "/../precious"}).Draw(rt, "path"), Link: rapid.Bool().Draw(rt, "is link")}
				if rapid.Bool().Draw(rt, "space") {
					x.TablespaceID, x.TablespaceName = rapid.SampledFrom([]string{"16384", "../x", "0", "1/2"}).Draw(rt, "oid"), part.Draw(rt, "space name")
				}
				m.Targets = append(m.Targets, x)
			}
			if rapid.Bool().Draw(rt, "size") {
				m.Files[0].Size = rapid.SampledFrom([]int64{-1, 0, 1, 1 << 62}).Draw(rt, "size")
			}
		})
		if s == nil {
			return
		}
		ro := o.options(s)
		ro.LinkAll, ro.Delta, ro.Force = rapid.Bool().Draw(rt, "link all"), rapid.Bool().Draw(rt, "delta"), rapid.Bool().Draw(rt, "force")
		if rapid.Bool().Draw(rt, "map all") {
			ro.TablespaceMapAll = o.space
		}
		_, _ = Restore(context.Background(), ro) // refused, failed or done: not outside
		o.fresh(t, "forged")
	})
}

// TestTreeStaysInside: whatever is asked of a tree, under whatever names, and
// whatever links lie in it, nothing outside changes.
func TestTreeStaysInside(t *testing.T) {
	o := newOutside(t)
	part := rapid.SampledFrom([]string{"..", ".", "", "a", "b", "base", "precious", "evil", "link", "rel", "16384", "/", o.dir})
	name := rapid.Custom(func(t *rapid.T) string {
		out := rapid.SampledFrom([]string{"pg_data", "pg_data/link", "pg_tblspc/16384", "pg_data/..", "pg_data/rel"}).Draw(t, "begin")
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			out += "/" + part.Draw(t, "part")
		}
		return out
	})
	rapid.Check(t, func(rt *rapid.T) {
		mkdirs(t, o.restored, o.space)
		_ = os.Symlink(o.dir, filepath.Join(o.restored, "link"))
		_ = os.Symlink("../precious", filepath.Join(o.restored, "rel"))
		_ = os.Link(filepath.Join(o.dir, "evil"), filepath.Join(o.restored, "evil"))
		tr := &tree{spots: map[string]spot{}}
		defer tr.close()
		if tr.open("pg_data", o.restored, "") != nil || tr.open("pg_tblspc/16384", o.space, "") != nil {
			rt.Fatal("cannot open")
		}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			n := name.Draw(rt, "name")
			switch rapid.IntRange(0, 7).Draw(rt, "step") {
			case 0:
				_ = tr.write(n, []byte("evil"))
			case 1:
				_ = tr.mkdir(n)
			case 2:
				_ = tr.remove(n)
			case 3:
				if n != "pg_data" && n != "pg_tblspc/16384" {
					_ = tr.removeAll(n)
				}
			case 4:
				_ = tr.link(n, rapid.SampledFrom([]string{o.dir, "../precious", "a"}).Draw(rt, "to"))
			case 5, 6:
				// A hard link shares its mode and time with the file outside; a
				// restore gives them to files only that it has made, or that have
				// one name.
				if filepath.Base(filepath.Clean(n)) != "evil" {
					_ = tr.chtimes(n, time.Unix(1, 0))
					_ = tr.chmod(n, 0o777)
				}
			case 7:
				if f, _, err := tr.edit(n); err == nil {
					_, _ = f.WriteString("evil")
					f.Close()
				}
			}
		}
		o.fresh(t, "a tree")
	})
}
