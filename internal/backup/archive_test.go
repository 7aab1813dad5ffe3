package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"manada/internal/blob"
	"manada/internal/cluster"
	"manada/internal/repo"
)

// walFile writes a segment of 1 MiB with the header of PostgreSQL 15.
func walFile(t *testing.T, name string, sysid uint64, fill byte) string {
	t.Helper()
	b := bytes.Repeat([]byte{fill}, 1<<20)
	le := binary.LittleEndian
	le.PutUint16(b, 0xD110)
	le.PutUint16(b[2:], 2)
	if tl, number, ok := cluster.ParseSegment(name[:min(24, len(name))], 1<<20); ok {
		le.PutUint32(b[4:], uint32(tl))
		le.PutUint64(b[8:], number<<20)
	}
	le.PutUint64(b[24:], sysid)
	le.PutUint32(b[32:], 1<<20)
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func archiveStanza(t *testing.T) ArchiveOptions {
	t.Helper()
	s := blob.NewMem()
	if err := StanzaCreate(t.Context(), s, "demo", Cluster{Version: "15", SystemID: 7, Catalog: 202209061, Control: 1300}, nil); err != nil {
		t.Fatal(err)
	}
	return ArchiveOptions{Storage: s, Stanza: "demo"}
}

func TestArchive(t *testing.T) {
	const name = "000000010000000000000005"
	ctx, o := t.Context(), archiveStanza(t)
	seg := walFile(t, name, 7, 1)
	for _, c := range []repo.Compression{repo.Zstd, repo.LZ4, repo.Gzip, repo.None} {
		o.Storage = archiveStanza(t).Storage
		o.Compress = c
		for range 2 { // PostgreSQL repeats itself
			if err := ArchivePush(ctx, o, seg); err != nil {
				t.Fatal(err)
			}
		}
		es, _ := o.Storage.List(ctx, "archive/demo/15-1/0000000100000000", false)
		if len(es) != 1 || !strings.HasSuffix(es[0].Name, c.Ext()) {
			t.Fatalf("%s: stored as %v", c, es)
		}
		dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
		if err := ArchiveGet(ctx, o, name, dest); err != nil {
			t.Fatal(err)
		}
		want, _ := os.ReadFile(seg)
		if got, _ := os.ReadFile(dest); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes came back", c, len(got))
		}
	}
	if err := ArchivePush(ctx, o, walFile(t, name, 7, 2)); Code(err) != CodeArchiveDuplicate {
		t.Errorf("another content under the same name: %v", err)
	}
	if err := ArchivePush(ctx, o, walFile(t, "000000010000000000000006", 8, 1)); Code(err) != CodeArchiveMismatch {
		t.Errorf("WAL of another cluster: %v", err)
	}
	for _, c := range []struct {
		what string
		at   int
		to   uint64
	}{
		{"another address", 8, 6 << 20}, {"a later timeline", 4, 2 | 5<<52}, {"another size", 32, 3 << 20}, {"no WAL", 0, 0},
	} {
		b, _ := os.ReadFile(seg)
		binary.LittleEndian.PutUint64(b[c.at:], c.to)
		other := filepath.Join(t.TempDir(), "000000010000000000000007")
		os.WriteFile(other, b, 0o600)
		if err := ArchivePush(ctx, o, other); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s than the name says: %v", c.what, err)
		}
	}
	part := walFile(t, name+".partial", 7, 3)
	if err := ArchivePush(ctx, o, part); err != nil {
		t.Errorf("the partial segment beside the whole one: %v", err)
	}
	if err := ArchiveGet(ctx, o, name+".partial", filepath.Join(t.TempDir(), "x")); err != nil {
		t.Error(err)
	}
	if err := ArchivePush(ctx, o, walFile(t, "something", 7, 1)); Code(err) != CodeOption {
		t.Errorf("a name that is no WAL's: %v", err)
	}
}

func TestArchiveTexts(t *testing.T) {
	ctx, o := t.Context(), archiveStanza(t)
	dir := t.TempDir()
	for _, n := range []string{"00000002.history", "000000010000000000000002.00000028.backup"} {
		p := filepath.Join(dir, n)
		os.WriteFile(p, []byte("1\t0/5000000\tno reason\n"), 0o600)
		for range 2 {
			if err := ArchivePush(ctx, o, p); err != nil {
				t.Fatal(err)
			}
		}
		os.WriteFile(p, []byte("something else\n"), 0o600)
		if err := ArchivePush(ctx, o, p); Code(err) != CodeArchiveDuplicate {
			t.Errorf("%s with another content: %v", n, err)
		}
		dest := filepath.Join(dir, "got")
		if err := ArchiveGet(ctx, o, n, dest); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(dest); !strings.HasPrefix(string(b), "1\t") {
			t.Errorf("%s: %q", n, b)
		}
	}
	if _, err := o.Storage.Stat(ctx, "archive/demo/15-1/00000002.history"); err != nil {
		t.Error(err)
	}
}

// TestArchiveNotFound: "not there" is only said of the archive. Anything else
// that fails would otherwise end a recovery before its time.
func TestArchiveNotFound(t *testing.T) {
	const name = "000000010000000000000005"
	ctx, o := t.Context(), archiveStanza(t)
	dest := filepath.Join(t.TempDir(), "x")
	for _, n := range []string{name, "00000002.history"} {
		if err := ArchiveGet(ctx, o, n, dest); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", n, err)
		}
	}
	if err := ArchivePush(ctx, o, walFile(t, name, 7, 1)); err != nil {
		t.Fatal(err)
	}
	if err := ArchiveGet(ctx, o, name, filepath.Join(t.TempDir(), "none", "x")); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("to a directory that is not there: %v", err)
	}
	bad := o
	bad.Stanza = "none"
	if err := ArchiveGet(ctx, bad, name, dest); Code(err) != CodeFileMissing || errors.Is(err, ErrNotFound) {
		t.Errorf("from a stanza that is not there: %v", err)
	}
	m := o.Storage.(*blob.Mem)
	m.Fault = func(op blob.Op, n string) error {
		if op == blob.OpRead && strings.Contains(n, name) {
			return errors.New("disk gone")
		}
		return nil
	}
	if err := ArchiveGet(ctx, o, name, dest); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("from a storage that breaks: %v", err)
	}
	m.Fault = nil
	es, _ := m.List(ctx, "archive/demo/15-1", true)
	stored := "archive/demo/15-1/" + es[0].Name
	b, _ := blob.Get(ctx, m, stored)
	b = bytes.Clone(b)
	b[20] ^= 0xff // farther on a repetition may mean the same
	m.Put(ctx, stored, bytes.NewReader(b), blob.PutOptions{})
	if err := ArchiveGet(ctx, o, name, dest); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a damaged segment: %v", err)
	}
	if es, _ := os.ReadDir(filepath.Dir(dest)); len(es) != 0 {
		t.Errorf("left behind: %v", es)
	}
}

func BenchmarkArchivePush(b *testing.B) {
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	le := binary.LittleEndian
	le.PutUint16(data, 0xD110)
	le.PutUint16(data[2:], 2)
	le.PutUint32(data[4:], 1)
	le.PutUint64(data[8:], 5*16<<20)
	le.PutUint64(data[24:], 7)
	le.PutUint32(data[32:], 16<<20)
	path := filepath.Join(b.TempDir(), "000000010000000000000005")
	os.WriteFile(path, data, 0o600)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		b.StopTimer()
		s := blob.NewMem()
		StanzaCreate(b.Context(), s, "demo", Cluster{Version: "15", SystemID: 7}, nil)
		b.StartTimer()
		if err := ArchivePush(b.Context(), ArchiveOptions{Storage: s, Stanza: "demo"}, path); err != nil {
			b.Fatal(err)
		}
	}
}
