package agent

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/postgres"
	"manada/internal/store"
)

// watched is an agent that leads epoch 7 with b in sync, and one look of it.
func watched() (*Agent, func(wal cluster.LSN, senders ...cluster.Sender) bool) {
	a := &Agent{events: make(chan store.Event, 64), mem: newMemory(), certified: true, log: slog.New(slog.DiscardHandler)}
	a.noteMembers([]cluster.MemberAccess{{Node: "a", Addrs: []string{"10.0.0.1"}}, {Node: "b", Addrs: []string{"10.0.0.2", "fd00::2"}}}, time.Now())
	a.rec.snap.Term = &cluster.Term{Epoch: 7, Leader: "a", Open: true, K: 1, Sync: []cluster.Member{{Name: "b", Instance: "i-b"}}}
	a.mem.leads, a.mem.provedPID, a.mem.syncSince = 7, 11, 0x700
	return a, func(wal cluster.LSN, senders ...cluster.Sender) bool {
		return a.noteStrangers(&observed{at: time.Now(), state: cluster.PostgresPrimary, postmaster: 11, wal: wal, senders: senders,
			sync: cluster.WaitFor(1, 7, "b")})
	}
}

func TestStrangersAreToldByRoleAndAddress(t *testing.T) {
	a, _ := watched()
	for _, c := range []struct{ name, role, addr, want string }{
		{"b@e7", cluster.RoleReplication, "10.0.0.2", ""},
		{"b@e7", cluster.RoleReplication, "fd00::2", ""},
		{"b~7", cluster.RoleReplication, "10.0.0.14", "no member's address"},
		{"b@e7", "reppy", "10.0.0.2", "role reppy from 10.0.0.2"},
		{"manada:clone:b", cluster.RoleReplication, "10.0.0.14", ""},
		{"feed", "feed", "", "role feed from this machine"},
		{"b@e7", "", "10.0.0.2", "role (unknown)"}, // dropped meanwhile
	} {
		if got := a.stranger(c.name, c.role, c.addr); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
	// b moves: its old walsender is no stranger's for a while.
	moved := []cluster.MemberAccess{{Node: "b", Addrs: []string{"10.0.0.3"}}}
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{time.Minute, false}, {movedFor + time.Minute, true}} {
		a.noteMembers(moved, time.Now().Add(c.after))
		if got := a.stranger("b@e7", cluster.RoleReplication, "10.0.0.2"); (got != "") != c.want {
			t.Errorf("after %s: %q", c.after, got)
		}
	}
	a.memberAddrs = nil // not looked up yet: the role alone tells
	if got := a.stranger("b@e7", cluster.RoleReplication, "10.0.0.14"); got != "" {
		t.Error(got)
	}
}

func TestImpostorIsRememberedUntilTheRecordSaysSo(t *testing.T) {
	a, look := watched()
	began := time.Now().Add(time.Millisecond).UnixMicro()
	true1 := cluster.Sender{Name: "b@e7", PID: 21, Flush: 0x800}
	false1 := cluster.Sender{Name: "b@e7", PID: 22, Flush: 0x900, Stranger: "role reppy from 10.0.0.14", Start: began}
	look(0x800, true1)
	time.Sleep(2 * time.Millisecond)
	if !look(0x900, true1, false1) || a.mem.provedPID != 0 || a.mem.syncSince != 0 {
		t.Fatal("what was proved still counts")
	}
	look(0x900, true1)
	if a.strangers.unrecorded == "" {
		t.Fatal("forgotten although the record says k = 1")
	}
	a.rec.unsettled, a.rec.snap.Term.K = true, 0
	look(0x900, true1)
	if a.strangers.unrecorded == "" {
		t.Fatal("forgotten although k = 1 may still be on its way")
	}
	a.rec.unsettled = false
	look(0x900, true1)
	if a.strangers.unrecorded != "" {
		t.Fatal("remembered although it is recorded")
	}
	cs := a.impostorConditions()
	if len(cs) != 1 || !strings.Contains(cs[0].Text, "commits from 0/800 to 0/900 were acknowledged by an impostor") {
		t.Fatalf("%+v", cs)
	}
	// One whose name nobody waits for has acknowledged nothing.
	false1.Name, false1.PID = "c~7", 23
	look(0xA00, true1, false1)
	look(0xB00, true1)
	for _, c := range a.impostorConditions() {
		if strings.Contains(c.Text, "c~7") && !strings.Contains(c.Text, "nothing was acknowledged") {
			t.Error(c.Text)
		}
	}
}

func TestLieIsRememberedUntilPostgresRestarts(t *testing.T) {
	a, look := watched()
	look(0x800, cluster.Sender{Name: "b@e7", PID: 21, Flush: 0x801})
	look(0x900)
	if a.strangers.lie == "" || a.strangers.liedTo != 11 {
		t.Fatal("a false flush position is forgotten")
	}
	b, _ := watched()
	now := time.Now()
	for _, s := range []struct {
		after  time.Duration
		waited bool
		lied   bool
	}{{0, false, false}, {time.Minute, false, false}, {90 * time.Second, true, false}, {3 * time.Minute, false, false}, {6 * time.Minute, false, true}} {
		b.strangers.probed(s.waited, 11, now.Add(s.after))
		if (b.strangers.lie != "") != s.lied {
			t.Errorf("after %s: %q", s.after, b.strangers.lie)
		}
	}
}

// One that came and went between two looks is in PostgreSQL's log only. It costs
// what one that was seen costs, and its range is told.
func TestImpostorBetweenTwoLooks(t *testing.T) {
	a, look := watched()
	b := cluster.Sender{Name: "b@e7", PID: 21, Flush: 0x700}
	look(0x700, b)
	time.Sleep(2 * time.Millisecond)
	passed := func(state cluster.PostgresState, started ...postgres.SenderStart) bool {
		return a.passedBy(&observed{at: time.Now(), state: state, postmaster: 11, wal: 0x900, senders: []cluster.Sender{b},
			sync: cluster.WaitFor(1, 7, "b")}, started)
	}
	false1 := postgres.SenderStart{PID: 22, Role: "feed", Name: "b@e7", At: time.Now()}
	if passed(cluster.PostgresPrimary, postgres.SenderStart{PID: 21, Role: "feed", Name: "b@e7"}) || a.strangers.unrecorded != "" {
		t.Fatal("one that is there is judged by what is seen of it")
	}
	if passed(cluster.PostgresHung, false1) {
		t.Fatal("nothing is known of a PostgreSQL that hangs")
	}
	if !passed(cluster.PostgresPrimary) || a.mem.provedPID != 0 || a.mem.syncSince != 0 || a.strangers.unrecorded != "b@e7 is borne by role feed" {
		t.Fatalf("forgotten: %+v", a.strangers)
	}
	cs := a.impostorConditions()
	if len(cs) != 1 || !strings.Contains(cs[0].Text, "role feed") || !strings.Contains(cs[0].Text, "commits from 0/700 to 0/900") {
		t.Errorf("%+v", cs)
	}
	if passed(cluster.PostgresPrimary) || passed(cluster.PostgresPrimary, false1) {
		t.Error("told twice")
	}
	again := false1
	if again.At = time.Now(); !passed(cluster.PostgresPrimary, again) {
		t.Error("another one with the number of a process that is gone")
	}
	if passed(cluster.PostgresStandby, false1) || passed(cluster.PostgresPrimary) {
		t.Error("nobody's commits are acknowledged on a standby")
	}
}
