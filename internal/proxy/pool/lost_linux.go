package pool

import (
	"crypto/tls"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Lost says whether the host behind a connection has not acknowledged data for
// longer than the limit, although it was sent again at least three times. A
// peer that is alive but does not read acknowledges, and is not lost.
func Lost(conn net.Conn, limit time.Duration) bool {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	lost := false
	err = raw.Control(func(fd uintptr) {
		i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		lost = i.Unacked > 0 && i.Retransmits >= 3 && time.Duration(i.Last_ack_recv)*time.Millisecond > limit
	})
	return err == nil && lost
}
