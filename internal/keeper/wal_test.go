package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/repo"
)

// TestWALIsWhatItsNameSays: what a host stores under the name of a segment is
// that segment, or nothing is stored.
func TestWALIsWhatItsNameSays(t *testing.T) {
	h := newHouse(t)
	ctx, a := t.Context(), h.as("db1")
	const name = "0000000200000000000000A7"
	whole := make([]byte, 1<<20)
	le := binary.LittleEndian
	le.PutUint32(whole, 0xD110|2<<16)
	le.PutUint32(whole[4:], 2)
	le.PutUint64(whole[8:], 0xA7<<20)
	le.PutUint64(whole[24:], 7)
	le.PutUint32(whole[32:], 1<<20)
	with := func(change func(b []byte)) []byte {
		b := append([]byte{}, whole...)
		change(b)
		return b
	}
	for what, b := range map[string][]byte{
		"another cluster":  with(func(b []byte) { b[24]++ }),
		"another version":  with(func(b []byte) { b[0]++ }),
		"another place":    with(func(b []byte) { b[10]++ }),
		"a later timeline": with(func(b []byte) { b[4]++ }),
		"a short one":      whole[:1<<19],
		"a long one":       append(with(func([]byte) {}), 1),
		"a huge one":       with(func(b []byte) { le.PutUint32(b[32:], 1<<31) }),
		"nothing":          nil,
		"text":             []byte("junk"),
	} {
		path, text := storedAs(t, name, b)
		if err := put(ctx, a, path, text); !errors.Is(err, blob.ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	path, text := storedAs(t, name, whole)
	other, _ := storedAs(t, name, with(func(b []byte) { b[100]++ }))
	for what, try := range map[string][2]string{
		"another checksum": {other, text}, "not compressed": {path, string(whole)}, "cut off": {path, text[:len(text)-5]},
		"named as gzip": {strings.TrimSuffix(path, ".zst") + ".gz", text}, "with more behind it": {path, text + "junk"},
	} {
		if err := put(ctx, a, try[0], try[1]); !errors.Is(err, blob.ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, text := range []string{"archive/demo/15-1/00000002.history", "archive/demo/15-1/" + name[:16] + "/" + name + ".00000028.backup"} {
		if err := put(ctx, a, text, strings.Repeat("x", maxText+1)); !errors.Is(err, blob.ErrForbidden) {
			t.Errorf("a long %s: %v", text, err)
		}
	}
	if es, err := h.inner.List(ctx, "archive/demo/15-1", true); err != nil || len(es) != 0 {
		t.Errorf("stored: %v, %v", es, err)
	}
	must(t, put(ctx, a, path, text))
	must(t, put(ctx, a, "archive/demo/15-1/00000002.history", "1\t0/A700000\tno reason\n"))
	part, text := segment(t, "0000000200000000000000A8.partial", 1)
	must(t, put(ctx, a, part, text))
}

// TestOnlyTheWriterArchives: nobody but who leads stores WAL, and that one none
// that is still to come. What is true a moment later is waited for.
func TestOnlyTheWriterArchives(t *testing.T) {
	h := newHouse(t)
	w, known := Writer{Node: "db1", Timeline: 2, End: 0xA8 << 20}, true
	looks := 0
	h.guard.writer = func(context.Context) (Writer, bool) {
		if looks++; looks == 3 {
			w.End += 1 << 20 // the primary writes on
		}
		return w, known
	}
	try := func(node, name string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 4*writerPause) // less than patience
		defer cancel()
		path, text := "archive/demo/15-1/"+name, "1\t0/A700000\tno reason\n"
		if repo.KindOfWAL(name) == repo.WALSegment {
			path, text = segment(t, name, 1)
		}
		return h.guard.Put(WithCaller(ctx, node), path, strings.NewReader(text), blob.PutOptions{})
	}
	must(t, try("db1", "0000000200000000000000A7"))
	must(t, try("db1", "0000000200000000000000A8")) // is written while it waits
	for name, node := range map[string]string{
		"0000000200000000000000A6": "db2", // not the leader
		"0000000200000000000000A9": "db1", // still to come
		"0000000300000000000000A1": "db1", // of a timeline to come
		"00000003.history":         "db1",
		"00000002.history":         "db2",
	} {
		if err := try(node, name); err == nil {
			t.Errorf("%s was taken from %s", name, node)
		}
	}
	must(t, try("db1", "0000000100000000000000FF")) // of an earlier timeline, whose end was farther
	known = false
	must(t, try("db2", "0000000200000000000000B0"))

	known, h.guard.patience = true, 2*writerPause
	start := time.Now()
	err := h.guard.mayWrite(WithCaller(t.Context(), "db2"), "0000000200000000000000B1", 0)
	if !errors.Is(err, blob.ErrForbidden) || !strings.Contains(err.Error(), "db2 does not lead the herd, db1 does") || time.Since(start) < 2*writerPause {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

// TestSetAside: the true content finds its place again, and nothing counts as lost.
func TestSetAside(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	before, text := segment(t, first, 1)
	must(t, put(ctx, h.as("db1"), before, text))
	const name = "000000010000000000000002"
	junk, text := segment(t, name, 2)
	must(t, put(ctx, h.as("db1"), junk, text))
	must(t, h.keep.Look(ctx))
	path, truth := segment(t, name, 3)
	if err := put(ctx, h.as("db1"), path, truth); !errors.Is(err, blob.ErrExist) {
		t.Fatalf("a second content: %v", err)
	}
	if _, err := h.as("db1").SetAside(ctx, stanza, name); err == nil || !strings.Contains(err.Error(), "only repo itself") {
		t.Errorf("another host: %v", err)
	}
	if _, err := h.as("repo").SetAside(ctx, stanza, "../x"); backup.Code(err) != backup.CodeOption {
		t.Errorf("no name: %v", err)
	}
	files, err := h.as("repo").SetAside(ctx, stanza, name)
	if err != nil || len(files) != 1 || files[0].Stored.IsZero() {
		t.Fatalf("%+v, %v", files, err)
	}
	if b, err := blob.Get(ctx, h.inner, files[0].File); err != nil || string(b) != text {
		t.Errorf("it is not kept: %v", err)
	}
	must(t, h.keep.Look(ctx))
	if m, _ := h.keep.State(); len(m.Lost) != 0 {
		t.Errorf("lost %v", m.Lost)
	}
	must(t, put(ctx, h.as("db1"), path, truth))
	if _, err := h.as("repo").SetAside(ctx, stanza, "000000010000000000000009"); backup.Code(err) != backup.CodeFileMissing {
		t.Errorf("what is not there: %v", err)
	}
	history := "archive/demo/15-1/00000002.history"
	must(t, put(ctx, h.as("db1"), history, "junk"))
	if files, err := h.as("repo").SetAside(ctx, stanza, "00000002.history"); err != nil || len(files) != 1 {
		t.Errorf("%+v, %v", files, err)
	}
	if _, err := h.inner.Stat(ctx, history); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
