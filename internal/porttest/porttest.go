// Package porttest hands out ports of loopback on which nobody listens.
//
// A port that is only found free is somebody else's by the time it is used: an
// outgoing connection's, another test's, another herd's. These are below those
// that the kernel gives to outgoing connections, come out of ranges that this
// process has locked for as long as it lives, however often what listens there
// dies, and are none that `manada up` chooses without being told.
package porttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Size is how many ports a range has.
const Size = 100

const first, count = 16000, 16000

// usual are the hundreds of the ports that `manada up` wants, each of which it
// replaces by itself and ten, twenty, ... thousand.
var usual = map[int]bool{23: true, 54: true, 74: true, 80: true, 84: true}

// errNone: whoever has them all is asked for too many.
var errNone = errors.New("no free port of loopback was found")

var own = ranges{dir: filepath.Join(os.TempDir(), "manada-test-ports")}

// Pick returns a free port.
func Pick() (int, error) {
	own.mu.Lock()
	defer own.mu.Unlock()
	for {
		for own.next < own.end {
			port := own.next
			own.next++
			if free(port) {
				return port, nil
			}
		}
		start, err := own.take()
		if err != nil {
			return 0, err
		}
		own.next, own.end = start, start+Size
	}
}

// Range returns the first port of a range that no test uses but what this one
// starts there, until this process ends. Somebody else may listen on a port of it.
func Range() (int, error) {
	own.mu.Lock()
	defer own.mu.Unlock()
	return own.take()
}

// ranges are those of one process. A range is a file that is locked.
type ranges struct {
	dir string

	mu        sync.Mutex
	next, end int        // of the range that Pick takes from
	held      []*os.File // locked until the process ends
}

// take locks a range that nobody has.
func (r *ranges) take() (int, error) {
	if err := os.MkdirAll(r.dir, 0o777); err != nil {
		return 0, fmt.Errorf("reserve ports: %w", err)
	}
	_ = os.Chmod(r.dir, 0o777) // whose tests run as another user reserve here, too
	n := rand.IntN(count / Size)
	for i := range count / Size {
		start := first + (n+i)%(count/Size)*Size
		if usual[start%10000/Size] {
			continue
		}
		f, err := lock(filepath.Join(r.dir, strconv.Itoa(start)))
		if err != nil {
			return 0, fmt.Errorf("reserve ports: %w", err)
		}
		if f != nil {
			r.held = append(r.held, f)
			return start, nil
		}
	}
	return 0, errNone
}

// lock is nil when somebody has the file, or it is of a user who keeps others out.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o666)
	if errors.Is(err, os.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_ = f.Chmod(0o666)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	return f, nil
}

// free says whether nobody listens there, and no herd of this machine has marked it.
func free(port int) bool {
	mark, err := net.Listen("unix", "@manada-port-"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	mark.Close()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}
