package cluster

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestLSN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := LSN(rapid.Uint64().Draw(t, "lsn"))
		if got, err := ParseLSN(l.String()); err != nil || got != l {
			t.Fatalf("%s read back: %d, %v", l, got, err)
		}
		data, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var back LSN
		if err := json.Unmarshal(data, &back); err != nil || back != l {
			t.Fatalf("%s read back: %d, %v", data, back, err)
		}
	})
	if LSN(0x16B3740).String() != "0/16B3740" || LSN(0x1_0000_0010).String() != "1/10" {
		t.Error("not PostgreSQL's notation")
	}
	if data, _ := json.Marshal(LSN(0)); string(data) != "null" {
		t.Errorf("no position is %s, want null", data)
	}
	for _, bad := range []string{"", "0", "0/", "/0", "x/1", "0/1FFFFFFFF", "-1/0", "0/1/2"} {
		if l, err := ParseLSN(bad); err == nil {
			t.Errorf("%q was read as %s", bad, l)
		}
	}
}

func TestSegment(t *testing.T) {
	const mb16 = 16 << 20
	for _, c := range []struct {
		tl   Timeline
		l    LSN
		want string
	}{
		{1, 0x16B3740, "000000010000000000000001"}, {2, 0x1_0000_0000, "000000020000000100000000"},
		{0xA, 0xFF_FF00_0000, "0000000A000000FF000000FF"},
	} {
		if got := c.tl.Segment(c.l, mb16); got != c.want {
			t.Errorf("segment of %s on timeline %d: %s, want %s", c.l, c.tl, got, c.want)
		}
	}
	if got := Timeline(26).HistoryFile(); got != "0000001A.history" {
		t.Error(got)
	}
}

func TestPositionsCompareByEpochFirst(t *testing.T) {
	low, high := Position{7, 0x900}, Position{8, 0x100}
	if !low.Less(high) || high.Less(low) || low.Less(low) || !(Position{7, 1}).Less(low) {
		t.Error("a lower LSN of a later epoch is greater (C7)")
	}
}

func TestNames(t *testing.T) {
	if n, e, ok := ParseCertifiedName(CertifiedName("b-1", 12)); n != "b-1" || e != 12 || !ok {
		t.Error(n, e, ok)
	}
	// What may never be waited for never reads as a certificate (H5, C1).
	for _, s := range []string{ServiceName("clone", "b"), UncertifiedName("b", 7), Placeholder, "b", "b@e", "b@ex", "b@e-1", "b@e1@e2", ""} {
		if n, e, ok := ParseCertifiedName(s); ok {
			t.Errorf("%q is read as a certificate of %s for e%d", s, n, e)
		}
	}
	for _, s := range []string{"a", "0", "master-2", strings.Repeat("a", 40)} {
		if err := CheckNodeName(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "-a", "A", "a_b", "a@e1", "a:b", "a~1", strings.Repeat("a", 41), "a\n"} {
		if CheckNodeName(s) == nil {
			t.Errorf("%q passes as a node's name", s)
		}
	}
	if SlotName("a-b") != "manada_a_b" {
		t.Error(SlotName("a-b"))
	}
}

func TestSyncSettings(t *testing.T) {
	for _, c := range []struct {
		s    SyncSetting
		want string
	}{
		{CommitAlone(), ""}, {HoldCommits(), `ANY 1 ("manada:none")`}, {SyncSetting{}, `ANY 1 ("manada:none")`},
		{WaitFor(2, 7, "c", "b"), `ANY 2 ("b@e7","c@e7")`}, {WaitFor(0, 7, "b"), `ANY 1 ("b@e7")`},
	} {
		if c.s.String() != c.want {
			t.Errorf("%+v: %s, want %s", c.s, c.s, c.want)
		}
		if back, ok := ParseSyncSetting(c.want); !ok || !back.Equal(c.s) && !(back.IsHold() && c.s.IsHold()) {
			t.Errorf("%s read back: %+v, %v", c.want, back, ok)
		}
	}
	for _, v := range []string{"*", "b@e7", `FIRST 1 ("b@e7")`, `ANY 1 (*)`, `ANY x ("b")`, " "} {
		if s, ok := ParseSyncSetting(v); ok {
			t.Errorf("%q is taken for a setting of ours: %+v", v, s)
		}
	}
	s := WaitFor(1, 7, "b")
	if !s.Has("b", 7) || s.Has("b", 8) || s.Has("c", 7) || s.IsHold() || CommitAlone().IsHold() || !HoldCommits().IsHold() {
		t.Error("what a setting waits for is read wrongly")
	}
	if s.Equal(WaitFor(2, 7, "b")) || s.Equal(WaitFor(1, 8, "b")) || s.Equal(HoldCommits()) || CommitAlone().Equal(HoldCommits()) {
		t.Error("different settings are equal")
	}
}

func TestStatesThatRun(t *testing.T) {
	for s, up := range map[PostgresState]bool{
		PostgresNone: false, PostgresDown: false, PostgresDying: false, PostgresStarting: true,
		PostgresStandby: true, PostgresPrimary: true, PostgresStopping: true, PostgresHung: true, "": false,
	} {
		if s.Up() != up {
			t.Errorf("%q: up %v", s, s.Up())
		}
	}
}
