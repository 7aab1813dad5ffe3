package porttest

import (
	"fmt"
	"net"
	"testing"
)

// TestPick: no port twice, also while nobody listens on it, and nobody does.
func TestPick(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		port, err := Pick()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d twice", port)
		}
		seen[port] = true
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}
