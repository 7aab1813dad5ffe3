//go:build !linux

package pool

import (
	"net"
	"time"
)

// Lost is only known on Linux; elsewhere the system's own time-outs end the connection.
func Lost(net.Conn, time.Duration) bool { return false }
