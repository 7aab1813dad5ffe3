package blob

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Remote is the storage that another host serves with [Handler].
type Remote struct {
	client *http.Client
	base   string
}

// NewRemote talks to the handler at base, an https URL, through the client,
// which brings the TLS configuration and must not set a Timeout: bodies take as
// long as they need while bytes move. An operation that stalls for a minute fails.
func NewRemote(base string, client *http.Client) (*Remote, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("open remote repository: %w", err)
	}
	if u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("open remote repository %q: want https://host:port", base)
	}
	return &Remote{client: client, base: strings.TrimRight(base, "/")}, nil
}

// errStalled is why a request is cancelled when nothing moves.
var errStalled = errors.New("no bytes moved for " + stallTimeout.String())

// watchdog cancels a request in which nothing has moved for stallTimeout.
type watchdog struct {
	t      *time.Timer
	cancel context.CancelCauseFunc
}

func newWatchdog(ctx context.Context) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel}
	w.t = time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	return ctx, w
}

func (w *watchdog) moved() { w.t.Reset(stallTimeout) }
func (w *watchdog) stop()  { w.t.Stop(); w.cancel(nil) }

type watchedReader struct {
	r io.Reader
	w *watchdog
}

func (r watchedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.w.moved()
	return n, err
}

// request sends one request and returns its response, whose status is 2xx. The
// caller closes the body and then stops the watchdog.
func (r *Remote) request(ctx context.Context, method, path, query string, body io.Reader, header http.Header) (*http.Response, *watchdog, error) {
	ctx, dog := newWatchdog(ctx)
	if body != nil {
		body = watchedReader{body, dog}
	}
	u := r.base + (&url.URL{Path: path}).EscapedPath()
	if query != "" {
		u += "?" + query
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		dog.stop()
		return nil, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := r.client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = cause
		}
		dog.stop()
		return nil, nil, fmt.Errorf("ask the repository host: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, dog, nil
	}
	defer dog.stop()
	defer resp.Body.Close()
	return nil, nil, remoteError(resp)
}

func remoteError(resp *http.Response) error {
	// Only the handler's own word counts: a 404 of some other server in the way
	// must never look like a missing file, as things are deleted for that.
	e := wireError{Error: resp.Status, Code: resp.Header.Get(headerCode)}
	if resp.Request.Method != http.MethodHead {
		if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&e); err != nil {
			return fmt.Errorf("repository host answered %s", resp.Status)
		}
	}
	for _, c := range errorCodes {
		if c.code == e.Code {
			return fmt.Errorf("repository host: %s: %w", e.Error, c.err)
		}
	}
	return fmt.Errorf("repository host: %s", e.Error)
}

// simple is a request without an answer to read.
func (r *Remote) simple(ctx context.Context, method, path, query string, body io.Reader, header http.Header) error {
	resp, dog, err := r.request(ctx, method, path, query, body, header)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	resp.Body.Close()
	dog.stop()
	return nil
}

type remoteBody struct {
	io.Reader
	body io.Closer
	dog  *watchdog
}

func (b *remoteBody) Close() error {
	err := b.body.Close()
	b.dog.stop()
	return err
}

// Open implements Storage.
func (r *Remote) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	h := http.Header{"Accept-Encoding": {"identity"}}
	switch {
	case length == 0:
		// An empty range cannot be said in a Range header.
		if _, err := r.Stat(ctx, name); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	case length > 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, dog, err := r.request(ctx, http.MethodGet, pathBlob+name, "", nil, h)
	if err != nil {
		return nil, err
	}
	return &remoteBody{watchedReader{resp.Body, dog}, resp.Body, dog}, nil
}

// sourceReader remembers the error that the caller's reader gave, which the HTTP
// client hides behind its own.
type sourceReader struct {
	r   io.Reader
	mu  sync.Mutex
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

// Put implements Storage.
func (r *Remote) Put(ctx context.Context, name string, body io.Reader, o PutOptions) error {
	if err := CheckName(name); err != nil {
		return err
	}
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	if o.NoOverwrite {
		h.Set("If-None-Match", "*")
	}
	src := &sourceReader{r: body}
	err := r.simple(ctx, http.MethodPut, pathBlob+name, "", src, h)
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.err != nil {
		return fmt.Errorf("write %s: %w", name, src.err)
	}
	return err
}

// Stat implements Storage.
func (r *Remote) Stat(ctx context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	resp, dog, err := r.request(ctx, http.MethodHead, pathBlob+name, "", nil, http.Header{"Accept-Encoding": {"identity"}})
	if err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", name, err)
	}
	resp.Body.Close()
	dog.stop()
	i := Info{Name: name, Dir: resp.Header.Get(headerDir) == "1"}
	if ms, err := strconv.ParseInt(resp.Header.Get(headerMTime), 10, 64); err == nil {
		i.ModTime = time.UnixMilli(ms)
	}
	if !i.Dir {
		i.Size = max(0, resp.ContentLength)
	}
	return i, nil
}

// List implements Storage.
func (r *Remote) List(ctx context.Context, dir string, recursive bool) ([]Info, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	query := ""
	if recursive {
		query = "recursive=1"
	}
	resp, dog, err := r.request(ctx, http.MethodGet, pathList+dir, query, nil, nil)
	if err != nil {
		return nil, err
	}
	defer dog.stop()
	defer resp.Body.Close()
	var es []wireInfo
	if err := json.NewDecoder(bufio.NewReader(watchedReader{resp.Body, dog})).Decode(&es); err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	out := make([]Info, len(es))
	for i, e := range es {
		out[i] = Info{Name: e.Name, Dir: e.Dir, Size: e.Size, ModTime: time.UnixMilli(e.Mod)}
	}
	return out, nil
}

// Delete implements Storage.
func (r *Remote) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return r.simple(ctx, http.MethodDelete, pathBlob+name, "", nil, nil)
}

// DeleteAll implements Storage.
func (r *Remote) DeleteAll(ctx context.Context, dir string) error {
	if err := CheckName(dir); err != nil {
		return err
	}
	return r.simple(ctx, http.MethodDelete, pathBlob+dir, "all=1", nil, nil)
}

// Link implements Storage.
func (r *Remote) Link(ctx context.Context, name, target string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := checkElement(target); err != nil {
		return err
	}
	return r.simple(ctx, http.MethodPut, pathLink+name, url.Values{"target": {target}}.Encode(), nil, nil)
}

type remoteLock struct {
	release func()
	cancel  func()
	once    sync.Once
	lost    chan struct{}
	done    chan struct{} // the reader of the response has ended
}

func (l *remoteLock) Lost() <-chan struct{} { return l.lost }
func (l *remoteLock) Unlock() {
	l.once.Do(func() {
		l.release()
		l.cancel()
		<-l.done
	})
}

// Lock implements Storage: the lock is held while the response is open.
func (r *Remote) Lock(ctx context.Context, name string) (Lock, error) {
	if err := checkElement(name); err != nil {
		return nil, err
	}
	lctx, cancel := context.WithCancel(ctx)
	resp, dog, err := r.request(lctx, http.MethodPost, pathLock+name, "", nil, nil)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	body := bufio.NewReader(resp.Body)
	token, err := body.ReadString('\n')
	if err != nil {
		cancel()
		resp.Body.Close()
		dog.stop()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	l := &remoteLock{cancel: cancel, lost: make(chan struct{}), done: make(chan struct{})}
	released := make(chan struct{})
	l.release = func() {
		close(released)
		// If this does not arrive, the end of the response does.
		c, stop := context.WithTimeout(context.WithoutCancel(ctx), lockBeat)
		defer stop()
		r.simple(c, http.MethodDelete, pathLock+name, url.Values{"token": {strings.TrimSpace(token)}}.Encode(), nil, nil)
	}
	// The server beats every lockBeat; the usual watchdog would wait too long.
	dog.t.Reset(3 * lockBeat)
	go func() {
		defer close(l.done)
		defer dog.stop()
		defer resp.Body.Close()
		for {
			if _, err := body.ReadString('\n'); err != nil {
				select {
				case <-released:
				default:
					if lctx.Err() == nil {
						close(l.lost)
					}
				}
				return
			}
			dog.t.Reset(3 * lockBeat)
		}
	}()
	return l, nil
}
