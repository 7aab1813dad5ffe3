package peer

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"manada/internal/cluster"
	"manada/internal/pki"
)

func TestUserTimeoutIsSet(t *testing.T) {
	h := newHerd(t, herdName, "master")
	a := h.host("master").serve()
	a.beating(cluster.Beat{})
	d := dialer{tls: h.id("slave", pki.KindData).TLSFor, timeout: 5 * time.Second, silence: 1234 * time.Millisecond}
	c, err := d.dial(t.Context(), "master", a.addr)
	must(t, err)
	defer c.Close()
	raw, err := c.NetConn().(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil || got != 1234 {
			t.Errorf("TCP_USER_TIMEOUT is %d ms, %v", got, err)
		}
	}))
}
