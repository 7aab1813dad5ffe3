package repo

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"manada/internal/blob"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if b, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func firstDiff(a, b []byte) string {
	as, bs := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return fmt.Sprintf("line %d:\n%s\n%s", i+1, as[i], bs[i])
		}
	}
	return fmt.Sprintf("%d lines, %d lines", len(as), len(bs))
}

// TestFixturesByteEqual: what pgBackRest wrote, read and written again, is the same.
func TestFixturesByteEqual(t *testing.T) {
	manifest := func(b []byte) ([]byte, error) {
		m, err := ParseManifest(b)
		if err != nil {
			return nil, err
		}
		return m.Render()
	}
	for name, again := range map[string]func([]byte) ([]byte, error){
		"archive.info-2.59.1": func(b []byte) ([]byte, error) {
			a, err := ParseArchiveInfo(b)
			if err != nil {
				return nil, err
			}
			return a.Render()
		},
		"backup.info-2.45": backupAgain, "backup.info-2.59.1-block": backupAgain,
		"manifest-2.45-full-plain.gz": manifest, "manifest-2.45-full-bundle-blockBETA.gz": manifest,
		"manifest-2.59.1-incr-bundle-block.gz": manifest,
	} {
		t.Run(name, func(t *testing.T) {
			in := fixture(t, name)
			out, err := again(in)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(in, out) {
				t.Fatal(firstDiff(in, out))
			}
		})
	}
}

func backupAgain(b []byte) ([]byte, error) {
	i, err := ParseBackupInfo(b)
	if err != nil {
		return nil, err
	}
	return i.Render()
}

// TestEntryFromManifest: the line that pgBackRest put into backup.info follows
// from the manifest that it wrote.
func TestEntryFromManifest(t *testing.T) {
	m, err := ParseManifest(fixture(t, "manifest-2.45-full-plain.gz"))
	if err != nil {
		t.Fatal(err)
	}
	i, err := ParseBackupInfo(fixture(t, "backup.info-2.45"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(i.Backups[0], m.Entry()); d != "" {
		t.Fatal(d)
	}
}

func TestRefusedByName(t *testing.T) {
	six := bytes.Replace(fixture(t, "archive.info-2.59.1"), []byte("backrest-format=5"), []byte("backrest-format=6"), 1)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"encrypted", fixture(t, "archive.info-2.45-aes256cbc-pass_secret.bin"), "encrypted"},
		{"format 6", six, "format 6"},
		{"format 6 header", []byte("PGBR006 xxxx"), "format 6"},
	} {
		_, err := ParseArchiveInfo(c.data)
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := ParseManifest(fixture(t, "manifest-2.45-encrypted-decrypted.gz")); !errors.Is(err, ErrUnsupported) {
		t.Errorf("manifest of an encrypted repository: %v", err)
	}
	for _, f := range []string{"manifest-2.45-full-bundle-blockBETA.gz", "manifest-2.59.1-incr-bundle-block.gz"} {
		m, err := ParseManifest(fixture(t, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Restorable(); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "block incremental") {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// TestDamage: no truncation and no changed byte of an info file goes unnoticed.
func TestDamage(t *testing.T) {
	in := fixture(t, "archive.info-2.59.1")
	good, err := ParseArchiveInfo(in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(in) - 1 { // the last line feed alone may be missing
		if _, err := ParseArchiveInfo(in[:i]); err == nil {
			t.Errorf("cut to %d bytes: accepted", i)
		}
		bad := bytes.Clone(in)
		bad[i] ^= 1
		if got, err := ParseArchiveInfo(bad); err == nil {
			t.Errorf("byte %d (%q) changed: accepted, %s", i, in[i], cmp.Diff(good, got))
		}
	}
}

func genManifest() *rapid.Generator[*Manifest] {
	text := rapid.StringMatching(`[a-zA-Z0-9 _="\\{}\[\].:é<>&-]{1,12}`)
	owners := rapid.SampledFrom([]Owner{"postgres", "root", ""})
	ptr := func(t *rapid.T, name string) *bool {
		return rapid.SampledFrom([]*bool{nil, new(bool), func() *bool { b := true; return &b }()}).Draw(t, name)
	}
	return rapid.Custom(func(t *rapid.T) *Manifest {
		m := &Manifest{BackrestVersion: text.Draw(t, "version"), Label: "20260102-030405F", Type: Full,
			ArchiveStart: "000000010000000000000001", Bundle: rapid.Bool().Draw(t, "bundle"),
			Start: rapid.Int64Range(0, 1<<40).Draw(t, "start"), References: []string{"20260102-030405F"},
			DB:          DB{ID: 1, SystemID: rapid.Uint64().Draw(t, "sysid"), Version: "15", Catalog: 202209061, Control: 1300},
			Option:      ManifestOption{Compress: Zstd, Delta: ptr(t, "delta"), BackupStandby: ptr(t, "standby")},
			FileDefault: Default{"postgres", "postgres", 0o600}, PathDefault: Default{"postgres", "postgres", 0o700},
		}
		m.Annotations = rapid.MapOfN(text, text, 0, 3).Draw(t, "annotations")
		if len(m.Annotations) == 0 {
			m.Annotations = nil
		}
		m.Targets = []Target{{Name: "pg_data", Path: "/" + text.Draw(t, "path")}}
		for i := range rapid.IntRange(0, 6).Draw(t, "files") {
			f := File{Name: fmt.Sprintf("pg_data/%d%s", i, text.Draw(t, "name")), Group: owners.Draw(t, "g"), User: owners.Draw(t, "u"),
				Mode: rapid.Uint32Range(1, 0o7777).Draw(t, "mode"), Size: rapid.Int64Range(0, 1<<40).Draw(t, "size"),
				SizeRepo: rapid.Int64Range(0, 1<<40).Draw(t, "repo"), SizeOriginal: rapid.Int64Range(0, 1<<40).Draw(t, "orig"),
				Timestamp: rapid.Int64Range(0, 1<<40).Draw(t, "time"), BundleID: rapid.Uint64Range(0, 3).Draw(t, "bundle"),
				ChecksumPage: rapid.Bool().Draw(t, "page")}
			if f.BundleID != 0 {
				f.BundleOffset = rapid.Int64Range(0, 1<<30).Draw(t, "offset")
			}
			if f.Size != 0 {
				f.SHA1 = strings.Repeat("ab", 20)
			}
			if f.ChecksumPage && rapid.Bool().Draw(t, "bad page") {
				f.ChecksumPageError, f.PageErrors = true, []byte(`[1,[3,5]]`)
			}
			m.Files = append(m.Files, f)
			m.Paths = append(m.Paths, Path{Name: strings.Replace(f.Name, "pg_data/", "pg_data/d", 1), Group: f.Group, User: f.User, Mode: f.Mode})
		}
		return m
	})
}

// TestManifestRoundTrip: reading what was written gives the same manifest, odd
// file names included.
func TestManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genManifest().Draw(t, "manifest")
		b, err := m.Render()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseManifest(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if d := cmp.Diff(m, got); d != "" {
			t.Fatalf("%s\n%s", d, b)
		}
		if err := got.Check(); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(fixture(f, "archive.info-2.59.1"))
	f.Add(fixture(f, "backup.info-2.59.1-block"))
	f.Add([]byte("[backrest]\nbackrest-format=5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// None may panic, and what is accepted can be written again.
		if a, err := ParseArchiveInfo(b); err == nil {
			if _, err := a.Render(); err != nil {
				t.Fatal(err)
			}
		}
		if i, err := ParseBackupInfo(b); err == nil {
			if _, err := i.Render(); err != nil {
				t.Fatal(err)
			}
		}
		ParseManifest(b)
	})
}

func TestNewLabel(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct {
		typ      BackupType
		prior    string
		existing []string
		want     string
	}{
		{Full, "", nil, "20260304-050607F"},
		{Incr, "20260301-000000F_20260302-000000D", nil, "20260301-000000F_20260304-050607I"},
		{Diff, "20260301-000000F", []string{"20260301-000000F"}, "20260301-000000F_20260304-050607D"},
		{Full, "", []string{"20260301-000000F_20260304-050607I"}, "20260304-050608F"},
		{Full, "", []string{"20260304-050608F"}, ""},
	} {
		got, err := NewLabel(c.typ, c.prior, now, c.existing)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestWALNames(t *testing.T) {
	got, err := Segments("0000000100000002000000FE", "000000010000000300000001", 16<<20)
	want := []string{"0000000100000002000000FE", "0000000100000002000000FF", "000000010000000300000000", "000000010000000300000001"}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Segments("000000010000000200000001", "000000020000000200000002", 16<<20); err == nil {
		t.Error("a range over two timelines was accepted")
	}
	sha := strings.Repeat("0f", 20)
	for file, ok := range map[string]bool{
		"000000010000000000000001-" + sha + ".zst":        true,
		"000000010000000000000001.partial-" + sha:         true,
		"000000010000000000000001-" + sha + ".xz":         false,
		"000000010000000000000001-" + sha[:39] + ".zst":   false,
		"000000010000000000000001.00000028.backup":        false,
		"000000010000000000000001-" + sha + ".zst.abcdef": false,
	} {
		s, got := ParseStoredWAL(file)
		if got != ok || (ok && s.String() != file) {
			t.Errorf("%s: %v, %v", file, s, got)
		}
	}
}

func TestCompression(t *testing.T) {
	data := bytes.Repeat([]byte("some database page, mostly the same. "), 1<<13)
	for _, c := range []Compression{None, Gzip, LZ4, Zstd} {
		for _, raw := range []bool{false, true} {
			w, err := NewCompressor(c, c.DefaultLevel(), raw)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second file is written with the same compressor
				var buf bytes.Buffer
				w.Reset(&buf)
				if _, err := w.Write(data); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				r, err := NewDecompressor(c, &buf, raw)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				r.Close()
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%s raw=%v: %d bytes, %v", c, raw, len(got), err)
				}
			}
		}
	}
}

// TestCopyIsUsed: a damaged or missing info file is read from its copy, but a
// manifest's copy alone is no backup.
func TestCopyIsUsed(t *testing.T) {
	ctx, s := t.Context(), blob.NewMem()
	a := &ArchiveInfo{Current: 1, History: []DB{{ID: 1, SystemID: 7, Version: "15"}}}
	if _, err := LoadArchiveInfo(ctx, s, "demo"); !errors.Is(err, blob.ErrNotExist) {
		t.Fatal(err)
	}
	if err := SaveArchiveInfo(ctx, s, "demo", a); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func() error{
		func() error {
			return s.Put(ctx, "archive/demo/archive.info", strings.NewReader("[backrest]\n"), blob.PutOptions{})
		},
		func() error { return s.Delete(ctx, "archive/demo/archive.info") },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadArchiveInfo(ctx, s, "demo"); err != nil || cmp.Diff(a, got) != "" {
			t.Fatalf("%v, %v", got, err)
		}
	}
	m := &Manifest{Label: "20260101-000000F", Type: Full, Option: ManifestOption{Compress: Zstd}, References: []string{"20260101-000000F"},
		DB: DB{ID: 1, Version: "15"}, Targets: []Target{{Name: "pg_data", Path: "/srv/pg"}}}
	if err := SaveManifest(ctx, s, "demo", m); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadManifest(ctx, s, "demo", m.Label); err != nil {
		t.Fatal(err)
	}
	s.Delete(ctx, "backup/demo/20260101-000000F/backup.manifest")
	if _, err := LoadManifest(ctx, s, "demo", m.Label); !errors.Is(err, blob.ErrNotExist) {
		t.Fatalf("a manifest's copy alone: %v", err)
	}
}

func BenchmarkParseManifest(b *testing.B) {
	data := fixture(b, "manifest-2.45-full-plain.gz")
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ParseManifest(data); err != nil {
			b.Fatal(err)
		}
	}
}
