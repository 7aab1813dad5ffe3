package session

import (
	"testing"

	"manada/internal/proxy/route"
)

// Homes are spread evenly, also when sessions come one after the other, and
// those that leave make room.
func TestHomes(t *testing.T) {
	nodes := func(names ...string) (out []route.Standby) {
		for _, n := range names {
			out = append(out, route.Standby{Node: route.Node{Name: n}})
		}
		return out
	}
	var h homes
	count := map[string]int{}
	for range 9 {
		count[h.choose(nodes("a", "b"))]++
	}
	if count[""] != 3 || count["a"] != 3 || count["b"] != 3 {
		t.Errorf("%v", count)
	}
	h.leave("a")
	h.leave("a")
	for range 2 {
		if n := h.choose(nodes("a", "b")); n != "a" {
			t.Errorf("%q, though a has fewer", n)
		}
	}
	h, count = homes{}, map[string]int{}
	for range 4 { // never two at once
		n := h.choose(nodes("a"))
		count[n]++
		h.leave(n)
	}
	if count[""] != 2 || count["a"] != 2 {
		t.Errorf("one after the other: %v", count)
	}
	if h.avoid("a"); !h.avoided("a") || h.avoided("b") {
		t.Error("avoided the wrong one")
	}
}
