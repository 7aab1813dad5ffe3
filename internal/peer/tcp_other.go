//go:build !linux

package peer

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing here: read deadlines alone notice a dead peer.
func setUserTimeout(time.Duration) func(network, address string, c syscall.RawConn) error {
	return nil
}
