// Package porttest hands out ports of loopback on which nobody listens.
//
// A port that is only found free is somebody else's by the time it is used: an
// outgoing connection's, another test's, another herd's. These are below those
// that the kernel gives to outgoing connections, and marked, for as long as this
// process lives, in the way in which `manada up` marks its own.
package porttest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

const first, count = 16000, 16000

var (
	mu   sync.Mutex
	kept []net.Listener // the marks
)

// Pick returns a free port.
func Pick() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range 1000 {
		port := first + rand.IntN(count)
		mark, err := net.Listen("unix", "@manada-port-"+strconv.Itoa(port))
		if err != nil {
			continue // another's
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			mark.Close()
			continue
		}
		l.Close()
		kept = append(kept, mark)
		return port, nil
	}
	return 0, errors.New("no free port of loopback was found")
}
