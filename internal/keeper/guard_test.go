package keeper

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/cluster"
	"manada/internal/repo"
)

const stanza = "demo"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// house is a repository host with a stanza.
type house struct {
	*testing.T
	inner blob.Storage
	guard *Guard
	keep  *Keeper
	disk  disk // of the repository
	now   time.Time
	url   string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	inner, err := blob.NewPosix(t.TempDir(), blob.PosixOptions{})
	must(t, err)
	room := Bound(inner, Reserve{Path: "/repo", Bytes: 100 << 20})
	h := &house{T: t, inner: inner, guard: NewGuard(room, stanza, nil), disk: disk{v: volume{free: 1 << 40}}, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return h.now }
	h.guard.now = clock
	room.look = func(string) (volume, error) { return h.disk.change(func(*volume) {}), nil }
	h.keep = New(Config{Node: "repo", Storage: inner, Stanza: stanza, Memory: t.TempDir() + "/m.json", MinAge: 24 * time.Hour,
		Retention: backup.Retention{Full: 2}, Now: clock})
	must(t, h.keep.Create(t.Context(), stanza, backup.Cluster{Version: "15", SystemID: 7}))
	handler := Handler(h.keep, h.guard)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), r.Header.Get("Node"))))
	}))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

// as is a host that asks.
func (h *house) as(node string) *Client {
	h.Helper()
	c, err := NewClient(h.url, &http.Client{Transport: named{node}})
	must(h, err)
	return c
}

type named struct{ node string }

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Node", n.node)
	return http.DefaultTransport.RoundTrip(r)
}

func put(ctx context.Context, s blob.Storage, name, text string) error {
	return s.Put(ctx, name, strings.NewReader(text), blob.PutOptions{})
}

func (h *house) label(kind string) string { return h.now.Format("20060102-150405") + kind }

// segment is a WAL segment of the stanza's cluster as it is stored: its name in
// the repository and its bytes.
func segment(t testing.TB, name string, fill byte) (path, text string) {
	t.Helper()
	tl, number, ok := cluster.ParseSegment(name[:24], 1<<20)
	if !ok {
		t.Fatal(name)
	}
	b := bytes.Repeat([]byte{fill}, 1<<20)
	le := binary.LittleEndian
	le.PutUint32(b, 0xD110|2<<16)
	le.PutUint32(b[4:], uint32(tl))
	le.PutUint64(b[8:], number<<20)
	le.PutUint64(b[24:], 7)
	le.PutUint32(b[32:], 1<<20)
	return storedAs(t, name, b)
}

func storedAs(t testing.TB, name string, b []byte) (path, text string) {
	t.Helper()
	sum := sha1.Sum(b)
	var out bytes.Buffer
	z, err := repo.NewCompressor(repo.Zstd, 1, false)
	must(t, err)
	z.Reset(&out)
	_, err = z.Write(b)
	must(t, err)
	must(t, z.Close())
	w := repo.StoredWAL{Name: name, SHA1: hex.EncodeToString(sum[:]), Compress: repo.Zstd}
	return "archive/demo/15-1/" + name[:16] + "/" + w.String(), out.String()
}

const first = "000000010000000000000001"

// TestOthersOnlyAdd: whatever a host asks for, nothing that is there changes.
func TestOthersOnlyAdd(t *testing.T) {
	h := newHouse(t)
	ctx, a, b := t.Context(), h.as("db1"), h.as("db2")
	forbidden := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, blob.ErrForbidden) && !errors.Is(err, blob.ErrExist) && !errors.Is(err, blob.ErrBadName) {
			t.Errorf("%s: %v", what, err)
		}
	}
	segA, walA := segment(t, first, 'a')
	segB, walB := segment(t, first, 'b')
	label := h.label("F")
	file := "backup/demo/" + label + "/pg_data/x"
	forbidden("a backup without the lock", put(ctx, a, file, "x"))
	lock, err := a.Lock(ctx, "demo-backup")
	must(t, err)
	defer lock.Unlock()
	if _, err := b.Lock(ctx, "demo-backup"); !errors.Is(err, blob.ErrLocked) {
		t.Errorf("two locks: %v", err)
	}
	must(t, put(ctx, a, file, "x"))
	forbidden("overwriting", put(ctx, a, file, "y"))
	forbidden("another host's backup", put(ctx, b, file+"2", "x"))
	forbidden("a second backup", put(ctx, a, "backup/demo/20260501-110000F/x", "x"))
	must(t, put(ctx, a, segA, walA))
	forbidden("the segment again", put(ctx, a, segA, walA))
	forbidden("the segment with another content", put(ctx, b, segB, walB))
	for _, name := range []string{
		"x", "backup/demo/backup.info", "backup/demo/backup.info.copy", "archive/demo/archive.info", "backup/demo/latest/x",
		"backup/demo/backup.history/2026/x", "backup/other/" + label + "/x", "archive/other/15-1/0000000100000000/x",
		"archive/demo/15-2/0000000100000000/" + segA[len("archive/demo/15-1/0000000100000000/"):],
		"archive/demo/15-1/x", "archive/demo/15-1/0000000100000000/x", "lock/x", "manada/schedule.json",
		strings.Repeat("d/", 1500) + "x",
	} {
		forbidden("writing "+name, put(ctx, a, name, "x"))
	}
	for _, name := range []string{file, "backup/demo/backup.info", segA} {
		forbidden("deleting "+name, a.Delete(ctx, name))
	}
	for _, dir := range []string{"backup", "archive", "lock", "backup/demo/" + label} {
		forbidden("deleting "+dir, a.DeleteAll(ctx, dir))
	}
	forbidden("linking", a.Link(ctx, "backup/demo/latest", "x"))
	_, err = a.Lock(ctx, "any")
	forbidden("any lock", err)
	if _, err := b.Begin(ctx, stanza); err == nil {
		t.Error("began a backup without the lock")
	}
	if err := b.Discard(ctx, stanza, label); err == nil {
		t.Error("discarded another host's backup")
	}
	// What was made so far is still there, and its maker may give it up.
	for _, name := range []string{file, segA, "backup/demo/backup.info"} {
		if _, err := h.inner.Stat(ctx, name); err != nil {
			t.Error(err)
		}
	}
	must(t, a.Discard(ctx, stanza, label))
	if _, err := h.inner.Stat(ctx, file); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("not discarded: %v", err)
	}
	// One that is finished is closed.
	done := "backup/demo/" + label + "/" + repo.ManifestFile
	must(t, put(ctx, a, done, "m"))
	forbidden("adding to a finished backup", put(ctx, a, file, "x"))
	if err := a.Discard(ctx, stanza, label); err != nil {
		t.Error(err)
	}
	if _, err := h.inner.Stat(ctx, done); err != nil {
		t.Errorf("a finished backup was discarded: %v", err)
	}
}

// TestLabelsOfAnotherTime would keep every later backup from being made.
func TestLabelsOfAnotherTime(t *testing.T) {
	h := newHouse(t)
	a := h.as("db1")
	lock, err := a.Lock(t.Context(), "demo-backup")
	must(t, err)
	defer lock.Unlock()
	if err := put(t.Context(), a, "backup/demo/20990101-000000F/x", "x"); !errors.Is(err, blob.ErrForbidden) {
		t.Errorf("got %v", err)
	}
	must(t, put(t.Context(), a, "backup/demo/20260101-000000F_"+h.label("I")+"/x", "x"))
}

// TestLocksEnd: who holds the lock and asks for nothing loses it.
func TestLocksEnd(t *testing.T) {
	h := newHouse(t)
	a := h.as("db1")
	lock, err := a.Lock(t.Context(), "demo-backup")
	must(t, err)
	defer lock.Unlock()
	h.now = h.now.Add(lockIdle - time.Second)
	if _, swept := h.guard.Sweep(); swept {
		t.Fatal("too early")
	}
	h.now = h.now.Add(time.Second)
	if node, swept := h.guard.Sweep(); !swept || node != "db1" {
		t.Fatalf("not taken back: %q", node)
	}
	select {
	case <-lock.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("its holder is not told")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		next, err := h.as("db2").Lock(t.Context(), "demo-backup")
		if err == nil {
			next.Unlock()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the next one does not get it: %v", err)
		}
	}
}
