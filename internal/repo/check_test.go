package repo

import (
	"errors"
	"strings"
	"testing"
)

// whole is a manifest with nothing wrong: a tablespace, a link, a bundle.
func whole() *Manifest {
	const label = "20260101-000000F_20260102-000000I"
	return &Manifest{Label: label, Type: Incr, Prior: "20260101-000000F", References: []string{"20260101-000000F", label},
		DB: DB{ID: 1, SystemID: 7, Version: "15", Catalog: 202209061, Control: 1300}, Option: ManifestOption{Compress: Zstd},
		Targets: []Target{{Name: "pg_data", Path: "/srv/pg"}, {Name: "pg_data/log", Path: "../log", Link: true},
			{Name: "pg_tblspc/16384", Path: "/srv/fast", TablespaceID: "16384", TablespaceName: "fast", Link: true}},
		Links: []Link{{Name: "pg_data/log", Destination: "../log"}, {Name: "pg_data/pg_tblspc/16384", Destination: "/srv/fast"}},
		Files: []File{{Name: "pg_data/PG_VERSION", Size: 3, SizeOriginal: 3, SizeRepo: 3, SHA1: strings.Repeat("ab", 20), BundleID: 1, BundleOffset: 5, Reference: "20260101-000000F"},
			{Name: "pg_tblspc/16384/PG_15_202209061/5/1"}},
		Paths: []Path{{Name: "pg_data"}, {Name: "pg_data/pg_tblspc"}, {Name: "pg_tblspc"}, {Name: "pg_tblspc/16384"}, {Name: "pg_tblspc/16384/PG_15_202209061"}},
	}
}

// TestCheck: nothing that leads out of a target or of the repository is taken.
func TestCheck(t *testing.T) {
	if err := whole().Check(); err != nil {
		t.Fatal(err)
	}
	file := func(f func(*File)) func(*Manifest) { return func(m *Manifest) { f(&m.Files[0]) } }
	space := func(f func(*Target)) func(*Manifest) { return func(m *Manifest) { f(&m.Targets[2]) } }
	bad := map[string]func(*Manifest){
		"negative size":          file(func(f *File) { f.Size = -1 }),
		"negative stored size":   file(func(f *File) { f.SizeRepo = -1 }),
		"negative original size": file(func(f *File) { f.SizeOriginal = -1 }),
		"negative offset":        file(func(f *File) { f.BundleOffset = -1 }),
		"end that overflows":     file(func(f *File) { f.BundleOffset, f.SizeRepo = 1<<62, 1<<62 }),
		"no checksum":            file(func(f *File) { f.SHA1 = "" }),
		"reference":              file(func(f *File) { f.Reference = "../20260101-000000F" }),
		"reference to a folder":  file(func(f *File) { f.Reference = "backup.history" }),
		"prior":                  func(m *Manifest) { m.Prior = ".." },
		"references":             func(m *Manifest) { m.References[0] = "latest" },
		"version":                func(m *Manifest) { m.DB.Version = "15/.." },
		"no version":             func(m *Manifest) { m.DB.Version = "" },
		"no pg_data":             func(m *Manifest) { m.Targets = m.Targets[1:] },
		"two of pg_data":         func(m *Manifest) { m.Targets = append(m.Targets, m.Targets[0]) },
		"pg_data is a link":      func(m *Manifest) { m.Targets[0].Link = true },
		"oid":                    space(func(t *Target) { t.TablespaceID, t.Name = "1/../../x", "pg_tblspc/1/../../x" }),
		"oid 0":                  space(func(t *Target) { t.TablespaceID, t.Name = "0", "pg_tblspc/0" }),
		"oid with zeros":         space(func(t *Target) { t.TablespaceID, t.Name = "016384", "pg_tblspc/016384" }),
		"oid of another":         space(func(t *Target) { t.TablespaceID = "16385" }),
		"relative space":         space(func(t *Target) { t.Path = "srv/fast" }),
		"space with ..":          space(func(t *Target) { t.Path = "/srv/../etc" }),
		"space without path":     space(func(t *Target) { t.Path = "" }),
		"link's file":            func(m *Manifest) { m.Targets[1].File = "../x" },
		"link outside":           func(m *Manifest) { m.Targets[1].Name = "pg_data/../log" },
		"link in pg_tblspc":      func(m *Manifest) { m.Targets[1].Name = "pg_data/pg_tblspc/1" },
		"target that is a path":  func(m *Manifest) { m.Targets[1].Link = false },
		"link's name":            func(m *Manifest) { m.Links[0].Name = "/etc/passwd" },
		"link to nothing":        func(m *Manifest) { m.Links[0].Destination = "" },
		"link with a null":       func(m *Manifest) { m.Links[0].Destination = "x\x00y" },
		"directory":              func(m *Manifest) { m.Paths[1].Name = "pg_data/x/../.." },
		"directory of no space":  func(m *Manifest) { m.Paths[3].Name = "pg_tblspc/16385" },
		"name twice":             func(m *Manifest) { m.Files[1].Name = m.Files[0].Name },
		"directory as a file":    func(m *Manifest) { m.Files[1].Name = m.Paths[1].Name },
		"beside PG_15":           func(m *Manifest) { m.Files[1].Name = "pg_tblspc/16384/PG_14_202107181/5/1" },
	}
	for _, n := range []string{"pg_data/../x", "/etc/passwd", "pg_data//x", "other/x", "pg_data/./x", "", "pg_data/pg_tblspc/16384/x", "pg_tblspc/1/x", "pg_tblspc//x", "pg_data/a\x00", "pg_dataX/y"} {
		bad["name "+n] = file(func(f *File) { f.Name = n })
	}
	for what, spoil := range bad {
		m := whole()
		spoil(m)
		if err := m.Check(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestParsedSizes: a manifest with an impossible size is not even read.
func TestParsedSizes(t *testing.T) {
	for _, key := range []string{"size", "repo-size", "bno", "szo"} {
		m := whole()
		f := &m.Files[0]
		f.SizeOriginal, f.SizeRepo = 4, 5
		map[string]func(){"size": func() { f.Size = -3 }, "repo-size": func() { f.SizeRepo = -3 }, "bno": func() { f.BundleOffset = -3 }, "szo": func() { f.SizeOriginal = -3 }}[key]()
		b, err := m.Render()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s of -3: %v", key, err)
		}
	}
}

// TestUnwritable: what would become another line, or what readers would not
// read, is not written.
func TestUnwritable(t *testing.T) {
	for what, spoil := range map[string]func(*Manifest, string){
		"file":        func(m *Manifest, s string) { m.Files[0].Name += s },
		"directory":   func(m *Manifest, s string) { m.Paths[0].Name += s },
		"link":        func(m *Manifest, s string) { m.Links[0].Name += s },
		"target":      func(m *Manifest, s string) { m.Targets[1].Name += s },
		"database":    func(m *Manifest, s string) { m.Databases = []Database{{Name: "a" + s, ID: 5}} },
		"destination": func(m *Manifest, s string) { m.Links[0].Destination += s },
		"path":        func(m *Manifest, s string) { m.Targets[0].Path += s },
		"space":       func(m *Manifest, s string) { m.Targets[2].TablespaceName += s },
		"annotation":  func(m *Manifest, s string) { m.Annotations = map[string]string{"why": s} },
	} {
		value := what == "destination" || what == "path" || what == "space" || what == "annotation"
		for text, refused := range map[string]bool{"\nx={}": !value, "\r": !value, "\x01": value, "\xff": value, "\t": false, "[x]": false} {
			m := whole()
			spoil(m, text)
			b, err := m.Render()
			if (err != nil) != refused || err != nil && !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s with %q: %v", what, text, err)
			}
			if err != nil {
				continue
			}
			if _, err := ParseManifest(b); err != nil {
				t.Errorf("%s with %q was written and cannot be read: %v", what, text, err)
			}
		}
	}
}

// TestBracketDatabase: a database whose name begins like a section, as pgBackRest
// writes it.
func TestBracketDatabase(t *testing.T) {
	m := whole()
	m.Databases = []Database{{Name: "[backrest]", ID: 16385, LastSystemID: 4}, {Name: "a]=b", ID: 5}}
	b, err := m.Render()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(b)
	if err != nil || len(got.Databases) != 2 || got.Databases[0] != m.Databases[0] || got.Databases[1] != m.Databases[1] {
		t.Errorf("%+v, %v\n%s", got.Databases, err, b)
	}
}
