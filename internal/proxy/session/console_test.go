package session

import (
	"math"
	"testing"
)

// IDs fit a column of four bytes however many clients have come, and 0 is nobody's.
func TestIDsAreSmall(t *testing.T) {
	before := lastID.Load()
	defer lastID.Store(before)
	lastID.Store(1<<clientBits - 2)
	for range 3 {
		if id := nextID(); id == 0 || id|readerID|sharedID > math.MaxInt32 {
			t.Errorf("%d", id)
		}
	}
}
