package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"manada/internal/durable"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func posixStorage(t *testing.T) *Posix {
	t.Helper()
	p, err := NewPosix(filepath.Join(t.TempDir(), "repo"), PosixOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func remoteStorage(t *testing.T, s Storage, http2 bool) *Remote {
	t.Helper()
	var serving sync.WaitGroup // Close does not wait for what goes over HTTP/2
	h := Handler(s)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving.Add(1)
		defer serving.Done()
		h.ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = http2
	srv.StartTLS()
	t.Cleanup(func() { srv.Close(); serving.Wait() })
	r, err := NewRemote(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Client().CloseIdleConnections)
	return r
}

func storages(t *testing.T) map[string]func(*testing.T) Storage {
	return map[string]func(*testing.T) Storage{
		"posix":        func(t *testing.T) Storage { return posixStorage(t) },
		"mem":          func(*testing.T) Storage { return NewMem() },
		"remote":       func(t *testing.T) Storage { return remoteStorage(t, posixStorage(t), false) },
		"remote_http2": func(t *testing.T) Storage { return remoteStorage(t, posixStorage(t), true) },
		"remote_mem":   func(t *testing.T) Storage { return remoteStorage(t, NewMem(), false) },
	}
}

// TestConformance is what every Storage has to do.
func TestConformance(t *testing.T) {
	cases := map[string]func(*testing.T, context.Context, Storage){
		"put and open": conformPutOpen, "range": conformRange, "stat": conformStat, "list": conformList,
		"delete": conformDelete, "no overwrite": conformNoOverwrite, "broken source": conformBrokenSource,
		"names": conformNames, "lock": conformLock, "cancel": conformCancel, "link": conformLink,
	}
	for sname, open := range storages(t) {
		for cname, run := range cases {
			t.Run(sname+"/"+cname, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				run(t, ctx, open(t))
			})
		}
	}
}

func put(t *testing.T, ctx context.Context, s Storage, name, content string) {
	t.Helper()
	if err := s.Put(ctx, name, strings.NewReader(content), PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, ctx context.Context, s Storage, name, content string) {
	t.Helper()
	b, err := Get(ctx, s, name)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != content {
		t.Fatalf("%s holds %.40q, want %.40q", name, b, content)
	}
}

func conformPutOpen(t *testing.T, ctx context.Context, s Storage) {
	put(t, ctx, s, "a/b/c", "first")
	want(t, ctx, s, "a/b/c", "first")
	put(t, ctx, s, "a/b/c", "second, longer")
	want(t, ctx, s, "a/b/c", "second, longer")
	put(t, ctx, s, "empty", "")
	want(t, ctx, s, "empty", "")
	put(t, ctx, s, "odd name %20+?#é", "x")
	want(t, ctx, s, "odd name %20+?#é", "x")
	big := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	put(t, ctx, s, "big", big)
	want(t, ctx, s, "big", big)
	if _, err := s.Open(ctx, "a/b/none", 0, -1); !errors.Is(err, ErrNotExist) {
		t.Fatalf("open of a missing file: %v", err)
	}
	if r, err := s.Open(ctx, "a/b", 0, -1); err == nil {
		_, err = io.ReadAll(r)
		r.Close()
		if err == nil {
			t.Fatal("open of a directory succeeded")
		}
	}
}

func conformRange(t *testing.T, ctx context.Context, s Storage) {
	put(t, ctx, s, "f", "0123456789")
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, 3, "012"}, {3, 4, "3456"}, {8, 10, "89"}, {4, -1, "456789"}, {0, 0, ""}, {10, -1, ""}, {9, 1, "9"}} {
		r, err := s.Open(ctx, "f", c.off, c.n)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(b) != c.want {
			t.Fatalf("range %d+%d: %q, %v; want %q", c.off, c.n, b, err, c.want)
		}
	}
	if _, err := s.Open(ctx, "none", 0, 0); !errors.Is(err, ErrNotExist) {
		t.Fatalf("empty range of a missing file: %v", err)
	}
}

func conformStat(t *testing.T, ctx context.Context, s Storage) {
	before := time.Now().Add(-2 * time.Second)
	put(t, ctx, s, "d/f", "12345")
	i, err := s.Stat(ctx, "d/f")
	if err != nil || i.Size != 5 || i.Dir || i.Name != "d/f" || i.ModTime.Before(before) {
		t.Fatalf("stat: %+v, %v", i, err)
	}
	if i, err := s.Stat(ctx, "d"); err != nil || !i.Dir || i.Size != 0 {
		t.Fatalf("stat of a directory: %+v, %v", i, err)
	}
	if _, err := s.Stat(ctx, "d/g"); !errors.Is(err, ErrNotExist) {
		t.Fatalf("stat of a missing file: %v", err)
	}
}

func names(t *testing.T, ctx context.Context, s Storage, dir string, recursive bool) []string {
	t.Helper()
	es, err := s.List(ctx, dir, recursive)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range es {
		n := e.Name
		if e.Dir {
			n += "/"
		}
		out = append(out, n)
	}
	return out
}

func conformList(t *testing.T, ctx context.Context, s Storage) {
	for _, n := range []string{"x/b", "x/a", "x/a-1", "x/sub/q", "x/sub/deep/z", "y"} {
		put(t, ctx, s, n, n)
	}
	for _, c := range []struct {
		dir       string
		recursive bool
		want      []string
	}{
		{"x", false, []string{"a", "a-1", "b", "sub/"}},
		{"x", true, []string{"a", "a-1", "b", "sub/deep/z", "sub/q"}},
		{"", false, []string{"x/", "y"}},
		{"none", true, []string{}},
		{"y", false, []string{}},
	} {
		if d := cmp.Diff(c.want, names(t, ctx, s, c.dir, c.recursive)); d != "" {
			t.Fatalf("list %q recursive=%v: %s", c.dir, c.recursive, d)
		}
	}
}

func conformDelete(t *testing.T, ctx context.Context, s Storage) {
	put(t, ctx, s, "d/a", "1")
	put(t, ctx, s, "d/b/c", "1")
	put(t, ctx, s, "dd", "1")
	for _, f := range []func() error{
		func() error { return s.Delete(ctx, "d/a") },
		func() error { return s.Delete(ctx, "d/a") },
		func() error { return s.Delete(ctx, "none/none") },
		func() error { return s.DeleteAll(ctx, "d") },
		func() error { return s.DeleteAll(ctx, "d") },
		func() error { return s.DeleteAll(ctx, "none/none") },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"dd"}, names(t, ctx, s, "", true)); d != "" {
		t.Fatal(d)
	}
}

func conformNoOverwrite(t *testing.T, ctx context.Context, s Storage) {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Put(ctx, "one", strings.NewReader(strings.Repeat(string(rune('a'+i)), 100)), PutOptions{NoOverwrite: true})
		})
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Fatalf("puts %d and %d both won", won, i)
		case !errors.Is(err, ErrExist):
			t.Fatal(err)
		}
	}
	if won < 0 {
		t.Fatal("no put won")
	}
	want(t, ctx, s, "one", strings.Repeat(string(rune('a'+won)), 100))
}

func conformBrokenSource(t *testing.T, ctx context.Context, s Storage) {
	put(t, ctx, s, "d/old", "old")
	boom := errors.New("boom")
	for _, n := range []string{"d/old", "d/new"} {
		src := io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), iotest.ErrReader(boom))
		if err := s.Put(ctx, n, src, PutOptions{}); !errors.Is(err, boom) {
			t.Fatalf("put from a source that breaks: %v", err)
		}
	}
	want(t, ctx, s, "d/old", "old")
	if d := cmp.Diff([]string{"d/old"}, names(t, ctx, s, "", true)); d != "" {
		t.Fatal(d)
	}
}

func conformNames(t *testing.T, ctx context.Context, s Storage) {
	for _, n := range []string{"", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a/./b", "a\x00b", "x" + durable.TempMark} {
		if _, err := s.Open(ctx, n, 0, -1); !errors.Is(err, ErrBadName) {
			t.Errorf("open %q: %v", n, err)
		}
		if err := s.Put(ctx, n, strings.NewReader("x"), PutOptions{}); !errors.Is(err, ErrBadName) {
			t.Errorf("put %q: %v", n, err)
		}
		if err := s.DeleteAll(ctx, n); !errors.Is(err, ErrBadName) {
			t.Errorf("delete all %q: %v", n, err)
		}
		if _, err := s.Stat(ctx, n); !errors.Is(err, ErrBadName) {
			t.Errorf("stat %q: %v", n, err)
		}
	}
	for _, n := range []string{"../x", "a/b", ".."} {
		if _, err := s.Lock(ctx, n); !errors.Is(err, ErrBadName) {
			t.Errorf("lock %q: %v", n, err)
		}
		if err := s.Link(ctx, "l", n); !errors.Is(err, ErrBadName) {
			t.Errorf("link to %q: %v", n, err)
		}
	}
	// Whatever else a file of a data directory may be called, so may one here.
	for _, n := range []string{`a\b`, `o/..\x`, "a b%2f?x=1#y", "é\xff", "line\nbreak", "..."} {
		put(t, ctx, s, n, "odd "+n)
		want(t, ctx, s, n, "odd "+n)
	}
}

func conformLock(t *testing.T, ctx context.Context, s Storage) {
	a, err := s.Lock(ctx, "demo-backup")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(ctx, "demo-backup"); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	b, err := s.Lock(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	b.Unlock()
	a.Unlock()
	a.Unlock()
	for range 5 { // free at once when Unlock has returned
		if a, err = s.Lock(ctx, "demo-backup"); err != nil {
			t.Fatal(err)
		}
		a.Unlock()
	}
}

// relock takes a lock whose holder has vanished; noticing that is not instant.
func relock(t *testing.T, ctx context.Context, s Storage, name string) Lock {
	t.Helper()
	for {
		l, err := s.Lock(ctx, name)
		if err == nil {
			return l
		}
		if !errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatal("the lock was never given up")
		case <-time.After(time.Millisecond):
		}
	}
}

func conformCancel(t *testing.T, ctx context.Context, s Storage) {
	c, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.Put(c, "d/f", pr, PutOptions{}) }()
	pw.Write(make([]byte, 100))
	cancel()
	pw.CloseWithError(context.Canceled)
	if err := <-done; err == nil {
		t.Fatal("a cancelled put succeeded")
	}
	if _, err := s.Stat(ctx, "d/f"); !errors.Is(err, ErrNotExist) {
		t.Fatalf("after a cancelled put: %v", err)
	}
}

func conformLink(t *testing.T, ctx context.Context, s Storage) {
	put(t, ctx, s, "d/20260101-000000F/f", "x")
	for range 2 {
		if err := s.Link(ctx, "d/latest", "20260101-000000F"); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"20260101-000000F/"}, names(t, ctx, s, "d", false)); d != "" {
		t.Fatalf("a link is listed: %s", d)
	}
	if err := s.Delete(ctx, "d/latest"); err != nil {
		t.Fatal(err)
	}
}

// TestRemoteClientDies: an upload whose client vanishes leaves nothing, and its
// lock is free again.
func TestRemoteClientDies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p := posixStorage(t)
	srv := httptest.NewServer(Handler(p))
	defer srv.Close()
	r, _ := NewRemote(srv.URL, srv.Client())
	l, err := r.Lock(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- r.Put(ctx, "d/f", pr, PutOptions{}) }()
	pw.Write(make([]byte, 1<<20))
	srv.CloseClientConnections()
	pw.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-done; err == nil {
		t.Fatal("put over a broken connection succeeded")
	}
	select {
	case <-l.Lost():
	case <-ctx.Done():
		t.Fatal("the loss of the lock was not reported")
	}
	relock(t, ctx, p, "x").Unlock()
	for {
		es, _ := os.ReadDir(filepath.Join(p.root, "d"))
		if len(es) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("left behind: %v", es)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestRemoteShortBody: a storage that fails halfway never looks like a short file.
func TestRemoteShortBody(t *testing.T) {
	ctx := t.Context()
	m := NewMem()
	put(t, ctx, m, "f", strings.Repeat("x", 1<<20))
	n := 0
	m.Fault = func(op Op, _ string) error {
		if n++; op == OpRead && n > 5 {
			return errors.New("disk gone")
		}
		return nil
	}
	if b, err := Get(ctx, remoteStorage(t, m, false), "f"); err == nil {
		t.Fatalf("read %d bytes of a file that broke, without an error", len(b))
	}
}

// TestRemoteForeign404: a server that is not ours has no files, but it cannot say
// that a file is missing.
func TestRemoteForeign404(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	defer srv.Client().CloseIdleConnections()
	r, _ := NewRemote(srv.URL, srv.Client())
	if _, err := r.Stat(t.Context(), "f"); err == nil || errors.Is(err, ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	if _, err := r.Open(t.Context(), "f", 0, -1); err == nil || errors.Is(err, ErrNotExist) {
		t.Errorf("open: %v", err)
	}
}

func TestPosixModes(t *testing.T) {
	p := posixStorage(t)
	put(t, t.Context(), p, "a/b", "x")
	for name, mode := range map[string]os.FileMode{"a": 0o750, "a/b": 0o640} {
		st, err := os.Stat(filepath.Join(p.root, name))
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", name, st.Mode(), err, mode)
		}
	}
}
