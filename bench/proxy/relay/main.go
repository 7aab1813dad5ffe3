// Command relay passes bytes between clients and a server and does nothing else:
// one thread, one epoll, a server connection for each client. What a proxy costs
// less than this it cannot cost. Linux only.
//
//	relay LISTEN-ADDRESS SERVER-ADDRESS-OR-SOCKET
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: relay LISTEN-ADDRESS SERVER-ADDRESS-OR-SOCKET")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

// relay is all there is: whose bytes go to whom.
type relay struct {
	epoll int
	peer  map[int32]int
	to    unix.Sockaddr
	kind  int
	buf   []byte
}

func run(listen, server string) error {
	runtime.LockOSThread()
	addr, err := inet(listen)
	if err != nil {
		return err
	}
	r := &relay{peer: map[int32]int{}, buf: make([]byte, 64<<10), kind: unix.AF_UNIX, to: &unix.SockaddrUnix{Name: server}}
	if !strings.HasPrefix(server, "/") {
		if r.to, err = inet(server); err != nil {
			return err
		}
		r.kind = unix.AF_INET
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(l, addr); err != nil {
		return err
	}
	if err := unix.Listen(l, 1024); err != nil {
		return err
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if err := r.watch(l); err != nil {
		return err
	}
	return r.loop(l)
}

func inet(s string) (*unix.SockaddrInet4, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	a := &unix.SockaddrInet4{Port: n}
	copy(a.Addr[:], net.ParseIP(host).To4())
	return a, nil
}

func (r *relay) watch(fd int) error {
	return unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (r *relay) loop(listener int) error {
	events := make([]unix.EpollEvent, 256)
	for {
		n, errno := raw(unix.SYS_EPOLL_WAIT, r.epoll, unsafe.Pointer(&events[0]), len(events), -1)
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		for _, e := range events[:n] {
			if int(e.Fd) == listener {
				if err := r.accept(listener); err != nil {
					return err
				}
				continue
			}
			if _, there := r.peer[e.Fd]; there && !r.pass(int(e.Fd)) {
				r.end(e.Fd)
			}
		}
	}
}

func (r *relay) accept(listener int) error {
	client, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	server, err := unix.Socket(r.kind, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(server, r.to); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(client, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if r.kind == unix.AF_INET {
		_ = unix.SetsockoptInt(server, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	r.peer[int32(client)], r.peer[int32(server)] = server, client
	if err := r.watch(client); err != nil {
		return err
	}
	return r.watch(server)
}

// pass brings what is there to the other side, which blocks when it is full.
func (r *relay) pass(fd int) bool {
	n, errno := raw(unix.SYS_READ, fd, unsafe.Pointer(&r.buf[0]), len(r.buf), 0)
	if errno != 0 || n == 0 {
		return errno == unix.EINTR
	}
	for b := r.buf[:n]; len(b) > 0; {
		n, errno := raw(unix.SYS_WRITE, r.peer[int32(fd)], unsafe.Pointer(&b[0]), len(b), 0)
		if errno != 0 && errno != unix.EINTR {
			return false
		}
		b = b[n:]
	}
	return true
}

// raw is a system call of which the runtime is not told: nothing else runs here
// that could wait for it.
func raw(call uintptr, fd int, p unsafe.Pointer, n, more int) (int, unix.Errno) {
	done, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(p), uintptr(n), uintptr(more), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(done), 0
}

func (r *relay) end(fd int32) {
	other := r.peer[fd]
	delete(r.peer, fd)
	delete(r.peer, int32(other))
	_ = unix.Close(int(fd))
	_ = unix.Close(other)
}
