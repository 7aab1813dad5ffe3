package loop

import (
	"net"
	"net/netip"
	"strconv"
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

// accept accepts a connection of TCP. Package unix asks for its protocol, too.
func accept(listener int32) (fd int32, from netip.AddrPort, errno unix.Errno) {
	var sa unix.RawSockaddrInet6 // as large as either
	size := uint32(unix.SizeofSockaddrInet6)
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, from, errno
	}
	return int32(n), tcpAddr(&sa), 0
}

// local is the address of our end of a connection of TCP.
func local(fd int32) netip.AddrPort {
	var sa unix.RawSockaddrInet6
	size := uint32(unix.SizeofSockaddrInet6)
	if _, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}
	}
	return tcpAddr(&sa)
}

func tcpAddr(sa *unix.RawSockaddrInet6) netip.AddrPort {
	b := (*[2]byte)(unsafe.Pointer(&sa.Port)) // as the network has it
	port := uint16(b[0])<<8 | uint16(b[1])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap().WithZone(zone(sa.Scope_id)), port)
}

// spelled is an address of TCP as text, which is asked for more than once.
type spelled string

func (spelled) Network() string  { return "tcp" }
func (s spelled) String() string { return string(s) }

// zone is the name of an interface; 0 is none.
func zone(id uint32) string {
	if id == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(id)); err == nil {
		return i.Name
	}
	return strconv.Itoa(int(id))
}

// epollWait waits for at most so many milliseconds. It returns EINTR when a signal has
// interrupted it.
func epollWait(ep int, events []unix.EpollEvent, ms int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
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
