package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"manada/internal/durable"
)

// ErrNotExist is what Open and Stat wrap when there is no such file.
var ErrNotExist = fs.ErrNotExist

// ErrExist is what Put wraps when the file is there and NoOverwrite was asked.
var ErrExist = fs.ErrExist

// ErrLocked is what Lock wraps when somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// ErrForbidden is what an operation wraps that its caller may not do.
var ErrForbidden = errors.New("not allowed")

// ErrNoSpace is what Put wraps that a storage has no room for.
var ErrNoSpace = errors.New("no room")

// ErrBadName is what every operation wraps for a name that is not clean,
// relative and inside the repository.
var ErrBadName = errors.New("invalid name")

// Info describes one entry.
type Info struct {
	Name    string    // relative to the listed directory for List, as asked for Stat
	Dir     bool      // a directory; its size is 0
	Size    int64     // bytes
	ModTime time.Time // when it was stored, second precision or better
}

// PutOptions change what Put does.
type PutOptions struct {
	// NoOverwrite makes Put fail with ErrExist instead of replacing a file. The
	// decision is atomic: of two concurrent Puts one fails.
	NoOverwrite bool
}

// Lock is a lock that is held until Unlock, or until its holder dies.
type Lock interface {
	// Unlock gives the lock up. Calling it again does nothing.
	Unlock()
	// Lost is closed when the lock is no longer held although Unlock was not
	// called, as when the connection to the repository host broke.
	Lost() <-chan struct{}
}

// Storage is a tree of files. All methods are safe for concurrent use.
type Storage interface {
	// Open reads length bytes from offset, or to the end when length is negative.
	// Fewer bytes than asked is not an error, a read that fails halfway is.
	Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
	// Put stores what r gives until io.EOF. The file appears, complete and
	// durable, when Put returns nil; on any error, r's included, nothing of it is
	// visible and what was there before still is.
	Put(ctx context.Context, name string, r io.Reader, o PutOptions) error
	// Stat describes a file or directory.
	Stat(ctx context.Context, name string) (Info, error)
	// List gives the entries below dir in ascending byte order of their names,
	// only the direct ones or, when recursive, all files (no directories). A
	// missing directory has no entries. Files being written are not listed.
	List(ctx context.Context, dir string, recursive bool) ([]Info, error)
	// Delete removes one file. A missing one is no error.
	Delete(ctx context.Context, name string) error
	// DeleteAll removes a directory and all below it. A missing one is no error.
	DeleteAll(ctx context.Context, dir string) error
	// Link makes name a symbolic link to target, a name in the same directory,
	// replacing what link was there. Storage without links does nothing: a link
	// is for people to look at and is never followed by a reader.
	Link(ctx context.Context, name, target string) error
	// Lock takes the named lock or fails at once with ErrLocked. The name is one
	// path element; it has nothing to do with the names of files.
	Lock(ctx context.Context, name string) (Lock, error)
}

// A name is no longer and no deeper than that.
const (
	maxName  = 3000
	maxDepth = 64
)

// CheckName says whether a name is clean, relative and stays inside.
func CheckName(name string) error {
	if name == "" || strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w %q", ErrBadName, name)
	}
	if len(name) > maxName || strings.Count(name, "/") >= maxDepth {
		return fmt.Errorf("%w %.60q...: longer than %d bytes or deeper than %d folders", ErrBadName, name, maxName, maxDepth)
	}
	for p := range strings.SplitSeq(name, "/") {
		if p == "" || p == "." || p == ".." {
			return fmt.Errorf("%w %q", ErrBadName, name)
		}
	}
	if strings.HasSuffix(name, durable.TempMark) {
		return fmt.Errorf("%w %q: the ending %s is reserved", ErrBadName, name, durable.TempMark)
	}
	return nil
}

// checkDir is CheckName, but the root may be named by "".
func checkDir(name string) error {
	if name == "" {
		return nil
	}
	return CheckName(name)
}

func checkElement(name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("%w %q", ErrBadName, name)
	}
	return CheckName(name)
}

// Get reads a whole file into memory.
func Get(ctx context.Context, s Storage, name string) ([]byte, error) {
	r, err := s.Open(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// ctxReader makes a reader fail once its context is done, so that a copy of any
// length ends soon after a cancellation.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
