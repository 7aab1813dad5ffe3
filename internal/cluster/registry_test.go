package cluster

import (
	"testing"
	"time"
)

func TestOwnersOfNamesAndAddresses(t *testing.T) {
	r := Registry{Good: []Certificate{
		{Node: "db1", Key: "k1", Hosts: []string{"10.0.0.11", "Db1.example.org", "127.0.0.1", "localhost", "::1"}},
		{Node: "pooler", Key: "k2", Hosts: []string{"fd00::7"}},
	}}
	for _, c := range []struct {
		node  string
		hosts []string
		owner string
	}{
		{"db3", []string{"10.0.0.13", "127.0.0.1", "::1", "localhost"}, ""},
		{"db3", []string{"10.0.0.11"}, "db1"},
		{"db3", []string{"::ffff:10.0.0.11"}, "db1"},
		{"db3", []string{"db1.EXAMPLE.org."}, "db1"},
		{"db3", []string{"DB1"}, "db1"},
		{"db3", []string{"fd00:0::7"}, "pooler"},
		{"db1", []string{"10.0.0.11", "db1"}, ""}, // its own
	} {
		if _, owner, _ := r.Owner(c.node, c.hosts); owner != c.owner {
			t.Errorf("%s with %v: owner %q, want %q", c.node, c.hosts, owner, c.owner)
		}
	}
	if !r.Other("db1", "another") || r.Other("db1", "k1") || r.Other("db9", "k1") {
		t.Error("whose name it is")
	}
}

func TestRegistryChanges(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cert := func(node, print string, own bool) Certificate {
		return Certificate{Node: node, Fingerprint: print, NotAfter: now.Add(time.Hour), Own: own}
	}
	r := Registry{Open: true}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.Register(cert("a", "a1", true), now))
	must(r.Register(cert("b", "b1", false), now))
	// Open until every host has registered its own for long enough.
	if r.Close([]string{"a", "b"}, now) || !r.Open {
		t.Fatal("closed although b was only seen")
	}
	must(r.Register(cert("b", "b1", true), now))
	if len(r.Good) != 2 || !r.Close([]string{"a", "b"}, now) || !r.Open || r.Close([]string{"a", "b"}, now.Add(time.Minute)) {
		t.Fatalf("begins to wait once: %+v", r)
	}
	if !r.Close([]string{"a", "b", "c"}, now.Add(time.Minute)) || r.Whole != nil {
		t.Fatal("waits although there is an old host")
	}
	r.Close([]string{"a", "b"}, now.Add(time.Minute))
	if !r.Close([]string{"a", "b"}, now.Add(time.Minute+closeAfter)) || r.Open {
		t.Fatal("not closed")
	}
	// Removed is refused, and stays so; another certificate of that name is good.
	if r.Remove("b") != 1 || r.Has("b") || r.Register(cert("b", "b1", true), now) == nil {
		t.Fatalf("removed: %+v", r)
	}
	must(r.Register(cert("b", "b2", true), now))
	// Expired ones are forgotten.
	must(r.Register(Certificate{Node: "c", Fingerprint: "c1", NotAfter: now.Add(3 * time.Hour)}, now.Add(2*time.Hour)))
	if len(r.Good) != 1 || len(r.Refused) != 0 {
		t.Fatalf("%+v", r)
	}
	open := Registry{Rev: 1, Open: true}
	if open.Remove("x"); open.Open {
		t.Fatal("a removal closes the list")
	}
}
