package keeper

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
)

// disk is a file system whose room the test says.
type disk struct {
	mu sync.Mutex
	v  volume
}

func (d *disk) change(f func(*volume)) volume {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.v)
	return d.v
}

// fills takes the space of what is read through it.
type fills struct {
	*disk
	left int64 // guarded by disk.mu
}

func (f *fills) Read(p []byte) (n int, err error) {
	f.change(func(v *volume) {
		n = int(min(int64(len(p)), f.left))
		f.left -= int64(n)
		v.free -= int64(n)
	})
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// end makes it give no more, and says what is left.
func (f *fills) end() (left int64) {
	f.change(func(*volume) { left, f.left = f.left, 0 })
	return left
}

// TestReserve: whatever others store, the reserve stays free; they are told why,
// and so is the state; what is there can be read and expired, and with room again
// all goes on.
func TestReserve(t *testing.T) {
	h := newHouse(t)
	ctx, a := t.Context(), h.as("db1")
	seg, text := segment(t, first, 1)
	old := h.backups("F", "F", "F")
	must(t, h.keep.Look(ctx))
	lock, err := a.Lock(ctx, "demo-backup")
	must(t, err)
	defer lock.Unlock()
	h.now = h.now.Add(time.Minute)
	label := h.label("F")
	must(t, put(ctx, a, "backup/demo/"+label+"/small", "x"))

	h.disk.change(func(v *volume) { v.free = 120 << 20 }) // 20 MB above the reserve
	flood := &fills{&h.disk, 1 << 30}
	err = a.Put(ctx, "backup/demo/"+label+"/flood", flood, blob.PutOptions{})
	if !errors.Is(err, blob.ErrNoSpace) || !strings.Contains(err.Error(), "backup.repo_reserve") {
		t.Fatalf("a flood: %v", err)
	}
	if wrote := 1<<30 - flood.end(); wrote > 128<<20 {
		t.Errorf("%d MB were written, with 20 MB of room", wrote>>20)
	}
	if _, err := h.inner.Stat(ctx, "backup/demo/"+label+"/flood"); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("what was refused is there: %v", err)
	}
	h.disk.change(func(v *volume) { v.free = 99 << 20 })
	if err := put(ctx, a, seg, text); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("WAL below the reserve: %v", err)
	}
	if st, err := a.State(ctx); err != nil || !strings.Contains(st.Full, "99 MB are free in /repo, and 100 MB stay free") {
		t.Errorf("told %q, %v", st.Full, err)
	}
	// Reading, giving up and expiring go on.
	if b, err := blob.Get(ctx, a, "backup/demo/"+label+"/small"); err != nil || string(b) != "x" {
		t.Errorf("reading: %q, %v", b, err)
	}
	must(t, a.Discard(ctx, stanza, label))
	must(t, h.keep.memory.update(func(m *Memory) bool {
		for l, k := range m.Backups {
			read := h.now
			k.Read, k.Since = &read, h.now.AddDate(0, 0, -3)
			m.Backups[l] = k
		}
		return true
	}))
	lock.Unlock()
	e, err := h.keep.ExpireBackups(ctx, stanza, backup.Retention{Full: 2}, false)
	if err != nil || len(e.Backups) != 1 || e.Backups[0] != old[0] {
		t.Errorf("expired %+v, %v", e, err)
	}
	h.disk.change(func(v *volume) { v.free = 101 << 20 })
	must(t, put(ctx, a, seg, text))
	if st, _ := a.State(ctx); st.Full != "" {
		t.Errorf("with room again: %q", st.Full)
	}
	h.disk.change(func(v *volume) { v.inodes, v.files = 1000, 9 })
	if err := put(ctx, a, "archive/demo/15-1/00000002.history", "1\t0/3000000\tno reason\n"); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("without inodes: %v", err)
	}
	if st, _ := a.State(ctx); !strings.Contains(st.Full, "9 files more") {
		t.Errorf("without inodes: %q", st.Full)
	}
}

// TestRoomOfAFolder that is not there yet is that of the volume on which it will be.
func TestRoomOfAFolder(t *testing.T) {
	dir := t.TempDir()
	here, err := look(dir)
	must(t, err)
	later, err := look(filepath.Join(dir, "not", "yet"))
	if err != nil || here.free == 0 || (later.free-here.free) > 1<<30 || later.inodes != here.inodes {
		t.Errorf("%+v and %+v, %v", here, later, err)
	}
	s, err := blob.NewPosix(filepath.Join(dir, "repo"), blob.PosixOptions{})
	must(t, err)
	b := Bound(s, Reserve{Path: s.Root(), Bytes: 1 << 60})
	if err := put(t.Context(), b, "archive/x", "x"); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	must(t, put(t.Context(), b, "manada/schedule.json", "x"))
}
