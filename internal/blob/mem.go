package blob

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"
	"sync"
	"time"
)

// Op names an operation to a Mem's Fault.
type Op string

// The operations a Fault is asked about. For OpRead and OpWrite it is asked
// again at every block of the body, so that it can break one halfway.
const (
	OpOpen   Op = "open"
	OpRead   Op = "read"
	OpPut    Op = "put"
	OpWrite  Op = "write"
	OpStat   Op = "stat"
	OpList   Op = "list"
	OpDelete Op = "delete"
	OpLink   Op = "link"
	OpLock   Op = "lock"
)

// Mem keeps files in memory: the twin of the real storages in tests. Faults make
// it behave like a storage that breaks, and Snapshot like one that was cut off.
type Mem struct {
	// Fault, when set, is asked before each operation and, for bodies, before
	// each block of at most 64 KiB; its error is what the operation returns. It
	// must be set before first use and be safe for concurrent calls.
	Fault func(op Op, name string) error
	// Now stamps files; nil means time.Now.
	Now func() time.Time

	mu    sync.Mutex
	files map[string]memFile
	locks map[string]bool
}

type memFile struct {
	data []byte
	mod  time.Time
	link string
}

// NewMem gives an empty storage.
func NewMem() *Mem { return &Mem{files: map[string]memFile{}, locks: map[string]bool{}} }

// Snapshot is a copy of what is stored now, without faults and locks: what a
// reader finds after everybody who was writing has died.
func (m *Mem) Snapshot() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := NewMem()
	for k, v := range m.files {
		n.files[k] = v
	}
	return n
}

func (m *Mem) fault(ctx context.Context, op Op, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Fault == nil {
		return nil
	}
	return m.Fault(op, name)
}

type memReader struct {
	ctx  context.Context
	m    *Mem
	name string
	r    *bytes.Reader
}

func (r *memReader) Close() error { return nil }

func (r *memReader) Read(p []byte) (int, error) {
	if err := r.m.fault(r.ctx, OpRead, r.name); err != nil {
		return 0, err
	}
	return r.r.Read(p[:min(len(p), 64<<10)])
}

// Open implements Storage.
func (m *Mem) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := m.fault(ctx, OpOpen, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[name]
	if !ok || f.link != "" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotExist}
	}
	b := f.data[min(offset, int64(len(f.data))):]
	if length >= 0 {
		b = b[:min(length, int64(len(b)))]
	}
	return &memReader{ctx, m, name, bytes.NewReader(b)}, nil
}

type memBody struct {
	ctx  context.Context
	m    *Mem
	name string
	r    io.Reader
}

func (b memBody) Read(p []byte) (int, error) {
	if err := b.m.fault(b.ctx, OpWrite, b.name); err != nil {
		return 0, err
	}
	return b.r.Read(p[:min(len(p), 64<<10)])
}

// Put implements Storage.
func (m *Mem) Put(ctx context.Context, name string, r io.Reader, o PutOptions) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := m.fault(ctx, OpPut, name); err != nil {
		return err
	}
	data, err := io.ReadAll(memBody{ctx, m, name, r})
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[name]; ok && o.NoOverwrite {
		return &fs.PathError{Op: "put", Path: name, Err: ErrExist}
	}
	m.files[name] = memFile{data: data, mod: now()}
	return nil
}

// Stat implements Storage.
func (m *Mem) Stat(ctx context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	if err := m.fault(ctx, OpStat, name); err != nil {
		return Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.files[name]; ok && f.link == "" {
		return Info{Name: name, Size: int64(len(f.data)), ModTime: f.mod}, nil
	}
	for k, f := range m.files {
		if strings.HasPrefix(k, name+"/") {
			return Info{Name: name, Dir: true, ModTime: f.mod}, nil
		}
	}
	return Info{}, &fs.PathError{Op: "stat", Path: name, Err: ErrNotExist}
}

// List implements Storage.
func (m *Mem) List(ctx context.Context, dir string, recursive bool) ([]Info, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	if err := m.fault(ctx, OpList, dir); err != nil {
		return nil, err
	}
	prefix := dir + "/"
	if dir == "" {
		prefix = ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]Info{}
	for k, f := range m.files {
		rest, ok := strings.CutPrefix(k, prefix)
		if !ok || f.link != "" {
			continue
		}
		if first, _, deeper := strings.Cut(rest, "/"); deeper && !recursive {
			seen[first] = Info{Name: first, Dir: true, ModTime: f.mod}
			continue
		}
		seen[rest] = Info{Name: rest, Size: int64(len(f.data)), ModTime: f.mod}
	}
	out := make([]Info, 0, len(seen))
	for _, i := range seen {
		out = append(out, i)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Delete implements Storage.
func (m *Mem) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := m.fault(ctx, OpDelete, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
	return nil
}

// DeleteAll implements Storage.
func (m *Mem) DeleteAll(ctx context.Context, dir string) error {
	if err := CheckName(dir); err != nil {
		return err
	}
	if err := m.fault(ctx, OpDelete, dir); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.files {
		if strings.HasPrefix(k, dir+"/") {
			delete(m.files, k)
		}
	}
	return nil
}

// Link implements Storage.
func (m *Mem) Link(ctx context.Context, name, target string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := checkElement(target); err != nil {
		return err
	}
	if err := m.fault(ctx, OpLink, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name] = memFile{link: target}
	return nil
}

type memLock struct {
	m    *Mem
	name string
	once sync.Once
}

func (l *memLock) Lost() <-chan struct{} { return nil }
func (l *memLock) Unlock() {
	l.once.Do(func() {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		delete(l.m.locks, l.name)
	})
}

// Lock implements Storage.
func (m *Mem) Lock(ctx context.Context, name string) (Lock, error) {
	if err := checkElement(name); err != nil {
		return nil, err
	}
	if err := m.fault(ctx, OpLock, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	m.locks[name] = true
	return &memLock{m: m, name: name}, nil
}
