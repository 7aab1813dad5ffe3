package process

import (
	"testing"

	"manada/internal/pki"
	"manada/internal/store"
)

// TestVotersStartAgainInTurn: one after the other by name, and only while every
// other voter is up.
func TestVotersStartAgainInTurn(t *testing.T) {
	const ca = "both authorities"
	now := pki.TrustOf([]byte(ca))
	all, one := store.Status{Voters: 3, Up: 3}, store.Status{Voters: 3, Up: 2}
	for _, c := range []struct {
		what           string
		backup, db, pg string // what each voter believes
		node, trust    string
		up             store.Status
		want           bool
	}{
		{"the first", "old", "old", "old", "backup", now, all, true},
		{"the second waits", "old", "old", "old", "db", now, all, false},
		{"the second, the first has it", now, "old", "old", "db", now, all, true},
		{"the first is not up again yet", now, "old", "old", "db", now, one, false},
		{"the last", now, now, "old", "pg", now, all, true},
		{"who has it", now, now, "old", "db", now, all, false},
		{"everybody has it", now, now, now, "pg", now, all, false},
		{"a host without a voter", "", "old", "old", "db", now, all, true},
		{"this host has an older ca.crt", "old", "old", "old", "backup", "older", all, false},
		{"the first is down", "old", "old", "old", "backup", now, one, false},
	} {
		v := &pki.Vault{Believed: ca, Holds: map[string]pki.Hold{"backup": {Store: c.backup}, "db": {Store: c.db}, "pg": {Store: c.pg}}}
		if got := inTurn(v, c.up, c.node, c.trust); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
