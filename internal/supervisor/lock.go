package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"manada/internal/guardian/procfs"
)

// Holder is who holds a lock file: the start time makes the pid an identity
// that a later process under the same number does not share.
type Holder struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
}

// Alive says whether that very process still runs.
func (h Holder) Alive() bool {
	if h.PID <= 0 {
		return false
	}
	p, err := procfs.Read(h.PID)
	return err == nil && p.Start == h.Start && !p.Dead()
}

// ErrHeld says that another supervisor runs on the data directory.
var ErrHeld = errors.New("another supervisor runs on this data directory")

// lock takes the lock file and writes this process into it. The returned file
// holds the lock until it is closed.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := take(f, path); err != nil {
		f.Close()
		return nil, err
	}
	p, err := procfs.Read(os.Getpid())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read own start time: %w", err)
	}
	b, _ := json.Marshal(Holder{p.PID, p.Start})
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write lock file: %w", err)
	}
	if _, err := f.WriteAt(append(b, '\n'), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write lock file: %w", err)
	}
	return f, nil
}

// take locks the file. Somebody who only looks (LockedBy) holds it for a
// moment: a lock whose writer is dead is tried again for a second.
func take(f *os.File, path string) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", path, err)
		}
		h, _ := readHolder(f)
		if h.Alive() || time.Now().After(deadline) {
			return fmt.Errorf("%w: pid %d holds %s", ErrHeld, h.PID, path)
		}
	}
}

func readHolder(f *os.File) (Holder, error) {
	var h Holder
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil {
		return h, err
	}
	err = json.Unmarshal(b, &h)
	return h, err
}

// LockedBy finds the living supervisor that holds the lock file, if any: the
// lock is tried, not believed.
func LockedBy(lockFile string) (Holder, bool, error) {
	f, err := os.Open(lockFile)
	if errors.Is(err, os.ErrNotExist) {
		return Holder{}, false, nil
	}
	if err != nil {
		return Holder{}, false, fmt.Errorf("open lock file: %w", err)
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return Holder{}, false, nil // closing lets it go
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return Holder{}, false, fmt.Errorf("try lock %s: %w", lockFile, err)
	}
	h, err := readHolder(f)
	if err != nil {
		return Holder{}, true, fmt.Errorf("read lock file %s: %w", lockFile, err)
	}
	return h, true, nil
}
