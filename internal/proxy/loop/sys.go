package loop

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The sockets never block, so these calls may do without telling Go's scheduler.

func recv(fd int32, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func send(fd int32, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// lost says whether the host behind a socket has not acknowledged data for longer
// than the limit, although it was sent again at least three times. A peer that
// is alive but does not read acknowledges, and is not lost. TCP_USER_TIMEOUT would
// end that one too.
func lost(fd int32, limitMS uint32) bool {
	i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && i.Unacked > 0 && i.Retransmits >= 3 && i.Last_ack_recv > limitMS
}

func (l *Loop) epoll(op int, slot uint32, s *sock, events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: int32(slot), Pad: int32(s.gen)}
	if err := unix.EpollCtl(l.ep, op, int(s.fd), &ev); err != nil {
		l.group.log.Error("epoll_ctl failed", "op", op, "error", err) // out of memory, or a mistake of ours
	}
}
