package main

import (
	"bytes"
	"os"
	"testing"
)

// TestNoticesAreCurrent: what is linked is named, with its licence.
func TestNoticesAreCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := print(&want, "manada/cmd/manada"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../THIRD-PARTY-NOTICES")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("THIRD-PARTY-NOTICES is not of these modules:  make notices")
	}
}
