package agent

import (
	"context"
	"slices"
	"testing"
	"time"
)

func TestAddressesOfHosts(t *testing.T) {
	var x addresses
	for host, want := range map[string]string{"10.0.0.7": "10.0.0.7", "fd00::7": "fd00::7", "::ffff:10.0.0.7": "10.0.0.7"} {
		if got, err := x.lookUp(t.Context(), host); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v %v", host, got, err)
		}
	}
	got, err := x.lookUp(t.Context(), "localhost")
	if err != nil || len(got) == 0 {
		t.Fatal(got, err)
	}
	if _, err := x.lookUp(t.Context(), "no-such-host.invalid"); err == nil {
		t.Error("a name that nobody has was found")
	}
	// Without a name server the last answer stands.
	x.known["localhost"] = lookedUp{got, time.Now().Add(-time.Hour)}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if again, err := x.lookUp(gone, "localhost"); err != nil || !slices.Equal(again, got) {
		t.Errorf("forgot %v: %v %v", got, again, err)
	}
}
