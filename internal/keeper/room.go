package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"manada/internal/blob"
)

// roomStep is after how many bytes of a file the free space is looked at again.
const roomStep = 1 << 20

// Reserve is what stays free on the volume of a repository.
type Reserve struct {
	Path  string // folder of the repository, there or not yet
	Bytes int64  // 0: nothing is kept free
}

// volume is a file system as it was seen. Sizes are in bytes.
type volume struct {
	free          int64
	files, inodes uint64 // inodes that are free, and all; 0: it does not count them
}

// look asks the file system on which the folder is, or will be.
func look(path string) (volume, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
			path = filepath.Dir(path)
			continue
		}
		if err != nil {
			return volume{}, fmt.Errorf("look for room in %s: %w", path, err)
		}
		return volume{int64(st.Bavail) * st.Bsize, st.Ffree, st.Files}, nil
	}
}

// short says why nothing more goes on a volume; "" while there is room.
func (r Reserve) short(v volume) string {
	switch {
	case r.Bytes == 0:
		return ""
	case v.free < r.Bytes:
		return fmt.Sprintf("%d MB are free in %s, and %d MB stay free (backup.repo_reserve)", v.free>>20, r.Path, r.Bytes>>20)
	case v.inodes > 0 && v.files < v.inodes/100:
		return fmt.Sprintf("the volume of %s can hold %d files more, and one in a hundred stays free", r.Path, v.files)
	}
	return ""
}

// Bounded is a storage that takes no new WAL and no new files of backups when
// that would leave less free space than the reserve: Put fails with
// blob.ErrNoSpace and nothing of the file stays. Reading and removing go on.
type Bounded struct {
	blob.Storage
	reserve Reserve
	look    func(path string) (volume, error)

	mu  sync.Mutex
	why string // the last Put was refused; "": it was not
}

// Bound keeps the reserve of a storage.
func Bound(s blob.Storage, r Reserve) *Bounded { return &Bounded{Storage: s, reserve: r, look: look} }

// Put implements blob.Storage.
func (b *Bounded) Put(ctx context.Context, name string, r io.Reader, o blob.PutOptions) error {
	if !strings.HasPrefix(name, "archive/") && !strings.HasPrefix(name, "backup/") {
		return b.Storage.Put(ctx, name, r, o)
	}
	err := b.room()
	if err == nil {
		err = b.Storage.Put(ctx, name, &roomReader{Reader: r, room: b.room}, o)
	}
	why := ""
	if short, ok := errors.AsType[shortage](err); ok {
		why, err = string(short), short
	} else if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		why = err.Error()
		err = shortage(why)
	}
	if err == nil || why != "" {
		b.mu.Lock()
		b.why = why
		b.mu.Unlock()
	}
	return err
}

// shortage is why there is no room.
type shortage string

func (s shortage) Error() string { return "the repository takes no new files: " + string(s) }
func (s shortage) Unwrap() error { return blob.ErrNoSpace }

func (b *Bounded) room() error {
	if b.reserve.Bytes == 0 {
		return nil
	}
	v, err := b.look(b.reserve.Path)
	if err != nil {
		return err
	}
	if why := b.reserve.short(v); why != "" {
		return shortage(why)
	}
	return nil
}

// Full says why new files are refused, as the last one was or the next one
// would be; "" while there is room.
func (b *Bounded) Full() string {
	b.mu.Lock()
	why := b.why
	b.mu.Unlock()
	if v, err := b.look(b.reserve.Path); err == nil {
		if now := b.reserve.short(v); now != "" {
			return now
		}
	}
	return why
}

// roomReader looks for room while a file is read: many may be written at once.
type roomReader struct {
	io.Reader
	room func() error
	n    int
}

func (r *roomReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.n += n; r.n >= roomStep {
		r.n = 0
		if short := r.room(); short != nil {
			return 0, short
		}
	}
	return n, err
}
