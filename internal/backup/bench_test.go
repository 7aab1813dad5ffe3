package backup

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"manada/internal/blob"
	"manada/internal/repo"
)

// sink takes files and forgets them.
type sink struct{ *blob.Mem }

func (sink) Put(_ context.Context, _ string, r io.Reader, _ blob.PutOptions) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// pages fills a file with pages that look like a table of short texts, with
// right checksums.
func pages(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n*pageSize)
	for i := range n {
		p := b[i*pageSize : (i+1)*pageSize]
		binary.LittleEndian.PutUint16(p[14:], 100)
		for at := 400; at+64 < pageSize; at += 64 {
			copy(p[at:], fmt.Sprintf("%08d name-%d town-%d          ", r.IntN(1e8), r.IntN(1e5), r.IntN(100)))
		}
		binary.LittleEndian.PutUint16(p[8:], pageChecksum(p, uint32(i)))
	}
	return b
}

// BenchmarkCopyLarge is all that is done with a large file but its storage.
func BenchmarkCopyLarge(b *testing.B) {
	dir := b.TempDir()
	data := pages(8192)
	name := "base/5/16384"
	os.MkdirAll(filepath.Join(dir, "base/5"), 0o700)
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		b.Fatal(err)
	}
	c := &copier{storage: sink{blob.NewMem()}, stanza: "demo", label: "20260101-000000F", pgdata: dir, comp: repo.Zstd, level: 3,
		track: &tracker{}, notes: newNotices(nil)}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		f := &repo.File{Name: "pg_data/" + name, Size: int64(len(data)), SizeOriginal: int64(len(data)), ChecksumPage: true}
		if err := c.run(b.Context(), []job{{items: []*item{{file: f}}}}, 1); err != nil {
			b.Fatal(err)
		}
		if f.ChecksumPageError || f.SHA1 == "" {
			b.Fatalf("%+v", f)
		}
	}
}

func BenchmarkPageChecksum(b *testing.B) {
	p := pages(1)
	b.SetBytes(pageSize)
	for b.Loop() {
		pageChecksum(p, 1)
	}
}
