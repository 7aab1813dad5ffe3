package proxy

import "testing"

// What may gather does not grow with the clients until there are very many.
func TestHeadroom(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 1 << 20: 400, 4 << 20: 100, 13 << 20: 30, 1 << 30: 25} {
		if got := percent(live); got != want {
			t.Errorf("%d MB in use: %d, want %d", live>>20, got, want)
		}
	}
}
