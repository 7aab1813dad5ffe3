package conv

import (
	"testing"
	"unsafe"
)

// An idle client costs its Conv and little else.
func TestSizeOfIdleClients(t *testing.T) {
	if n := unsafe.Sizeof(Conv{}); n > 1024 {
		t.Errorf("a conversation has %d bytes", n)
	} else {
		t.Logf("a conversation has %d bytes", n)
	}
}
