package compat

import "testing"

func TestFace(t *testing.T) {
	for argv0, want := range map[string]bool{"/usr/bin/repmgr": true, "repmgr": true, "manada": false, "/opt/repmgr/manada": false} {
		if _, ok := Face(argv0); ok != want {
			t.Errorf("%s: %v", argv0, ok)
		}
	}
}
