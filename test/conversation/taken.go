package conversation

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// taken waits until the other side has read all that was written, as the kernel
// tells. One that does not want to read yet is not waited for.
func (c *client) taken() {
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	remote := c.RemoteAddr().(*net.TCPAddr)
	ends := hexAddr(remote) + " " + hexAddr(local)
	for deadline := time.Now().Add(20 * time.Millisecond); time.Now().Before(deadline); {
		if queued, known := unread(ends); known && queued == "00000000" {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// unread is how many bytes lie in the queue of the socket between these ends.
func unread(ends string) (queued string, known bool) {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", false
	}
	_, line, ok := strings.Cut(string(b), ": "+ends+" ")
	if !ok {
		return "", false
	}
	f := strings.Fields(line[:min(len(line), 60)])
	if len(f) < 2 {
		return "", false
	}
	_, queued, ok = strings.Cut(f[1], ":")
	return queued, ok
}

// hexAddr is an address of IPv4 as /proc writes it: the bytes of the machine's
// word, which is little-endian here.
func hexAddr(a *net.TCPAddr) string {
	ip := slices.Clone(a.IP.To4())
	slices.Reverse(ip)
	return strings.ToUpper(hex.EncodeToString(ip)) + fmt.Sprintf(":%04X", a.Port)
}
