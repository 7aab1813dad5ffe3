package blob

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Handler serves a Storage to [Remote] clients. It decides nothing about who may
// use it: wrap it, or serve it where only mutual TLS gets in. The server must
// not set WriteTimeout (locks and large files take their time); a body that
// stalls for a minute is given up here.
func Handler(s Storage) http.Handler {
	h := &handler{s: s, held: map[string]*heldLock{}}
	m := http.NewServeMux()
	m.HandleFunc("GET "+pathBlob, h.get) // HEAD comes with it
	m.HandleFunc("PUT "+pathBlob, h.put)
	m.HandleFunc("DELETE "+pathBlob, h.delete)
	m.HandleFunc("PUT "+pathLink, h.link)
	m.HandleFunc("GET "+pathList, h.list)
	m.HandleFunc("POST "+pathLock, h.lock)
	m.HandleFunc("DELETE "+pathLock, h.unlock)
	// The mux redirects unclean paths; refusing them is clearer, and the check
	// of every name follows in the storage anyway.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for p := range strings.SplitSeq(r.URL.Path, "/") {
			if p == ".." || p == "." {
				writeError(w, fmt.Errorf("%w %q", ErrBadName, r.URL.Path))
				return
			}
		}
		m.ServeHTTP(w, r)
	})
}

const stallTimeout = time.Minute

// drainMost is how much is read of a file that was refused, in bytes.
const drainMost = 64 << 20

type handler struct {
	s    Storage
	mu   sync.Mutex
	held map[string]*heldLock // by token
}

// heldLock is a lock whose response is open.
type heldLock struct {
	release chan struct{} // closed to give it up
	free    chan struct{} // closed when it has been given up
	once    sync.Once
}

func (h *handler) get(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, pathBlob)
	st, err := h.s.Stat(r.Context(), name)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set(headerMTime, strconv.FormatInt(st.ModTime.UnixMilli(), 10))
	if st.Dir {
		w.Header().Set(headerDir, "1")
		if r.Method != http.MethodHead {
			writeError(w, fmt.Errorf("open %s: is a directory: %w", name, ErrNotExist))
		}
		return
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.FormatInt(st.Size, 10))
		return
	}
	offset, length, err := parseRange(r.Header.Get("Range"), st.Size)
	if err != nil {
		writeError(w, err)
		return
	}
	body, err := h.s.Open(r.Context(), name, offset, length)
	if err != nil {
		writeError(w, err)
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	if r.Header.Get("Range") != "" {
		w.WriteHeader(http.StatusPartialContent)
	}
	if n, err := io.Copy(&patientWriter{w, http.NewResponseController(w)}, body); err != nil || n != length {
		// The length was promised: ending the connection is the one way left to
		// tell the reader that this is not all.
		panic(http.ErrAbortHandler)
	}
}

// parseRange reads "bytes=a-" and "bytes=a-b" against a file's size.
func parseRange(s string, size int64) (offset, length int64, err error) {
	if s == "" {
		return 0, size, nil
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	offset, err = strconv.ParseInt(from, 10, 64)
	if !ok || err != nil || offset < 0 {
		return 0, 0, fmt.Errorf("range %q: want bytes=first-[last]", s)
	}
	offset = min(offset, size)
	length = size - offset
	if to != "" {
		last, err := strconv.ParseInt(to, 10, 64)
		if err != nil || last < offset-1 {
			return 0, 0, fmt.Errorf("range %q: want bytes=first-[last]", s)
		}
		length = min(length, last-offset+1)
	}
	return offset, length, nil
}

// patientWriter and patientReader give a body as long as it needs while bytes move.
type patientWriter struct {
	w  io.Writer
	rc *http.ResponseController
}

func (p *patientWriter) Write(b []byte) (int, error) {
	p.rc.SetWriteDeadline(time.Now().Add(stallTimeout))
	return p.w.Write(b)
}

type patientReader struct {
	r  io.Reader
	rc *http.ResponseController
}

func (p *patientReader) Read(b []byte) (int, error) {
	p.rc.SetReadDeadline(time.Now().Add(stallTimeout))
	return p.r.Read(b)
}

func (h *handler) put(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, pathBlob)
	o := PutOptions{NoOverwrite: r.Header.Get("If-None-Match") == "*"}
	// A client that goes away makes the body end with an error, never with EOF:
	// the storage then keeps nothing.
	body := &patientReader{r.Body, http.NewResponseController(w)}
	if err := h.s.Put(r.Context(), name, body, o); err != nil {
		// A client that is still sending hears the answer only afterwards.
		_, _ = io.CopyN(io.Discard, body, drainMost)
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) delete(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, pathBlob)
	del := h.s.Delete
	if r.URL.Query().Get("all") == "1" {
		del = h.s.DeleteAll
	}
	if err := del(r.Context(), name); err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) link(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, pathLink)
	if err := h.s.Link(r.Context(), name, r.URL.Query().Get("target")); err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	dir := strings.TrimPrefix(r.URL.Path, pathList)
	es, err := h.s.List(r.Context(), dir, r.URL.Query().Get("recursive") == "1")
	if err != nil {
		writeError(w, err)
		return
	}
	out := make([]wireInfo, len(es))
	for i, e := range es {
		out[i] = wireInfo{Name: e.Name, Dir: e.Dir, Size: e.Size, Mod: e.ModTime.UnixMilli()}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(out)
}

// lock holds the lock until the client goes away, so that a client killed or cut
// off loses it without having to say so.
func (h *handler) lock(w http.ResponseWriter, r *http.Request) {
	l, err := h.s.Lock(r.Context(), strings.TrimPrefix(r.URL.Path, pathLock))
	if err != nil {
		writeError(w, err)
		return
	}
	token := rand.Text()
	held := &heldLock{release: make(chan struct{}), free: make(chan struct{})}
	h.mu.Lock()
	h.held[token] = held
	h.mu.Unlock()
	defer func() {
		l.Unlock()
		h.mu.Lock()
		delete(h.held, token)
		h.mu.Unlock()
		close(held.free)
	}()
	h.hold(w, r, l, held, token)
}

func (h *handler) hold(w http.ResponseWriter, r *http.Request, l Lock, held *heldLock, line string) {
	rc := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	t := time.NewTicker(lockBeat)
	defer t.Stop()
	for {
		rc.SetWriteDeadline(time.Now().Add(2 * lockBeat))
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return
		}
		if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return
		}
		line = "held"
		select {
		case <-r.Context().Done():
			return
		case <-held.release:
			return
		case <-l.Lost():
			return
		case <-t.C:
		}
	}
}

// unlock answers when the lock is free, so that its client can take it again at once.
func (h *handler) unlock(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	held := h.held[r.URL.Query().Get("token")]
	h.mu.Unlock()
	if held != nil {
		held.once.Do(func() { close(held.release) })
		select {
		case <-held.free:
		case <-r.Context().Done():
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
