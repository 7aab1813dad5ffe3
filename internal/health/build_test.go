package health

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"manada/internal/cluster"
)

func codes(s cluster.Status) []string {
	out := []string{}
	for _, c := range s.Conditions {
		out = append(out, strings.TrimSuffix(c.Code+" "+c.Node, " "))
	}
	return out
}

func TestBuildConditions(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Input)
		health  cluster.Health
		exit    int
		primary string
		want    []string
	}{
		{"healthy", func(*Input) {}, "ok", 0, "master", nil},
		{"stale primary is no primary", func(in *Input) { stale(*in, "master", 4*time.Second) }, "down", 4, "", []string{"M-R02 master"}},
		{"fresh enough", func(in *Input) { stale(*in, "master", 3*time.Second) }, "ok", 0, "master", nil},
		{"won, not open", func(in *Input) {
			in.Term.Epoch, in.Term.Open, in.Term.Leader = 8, false, "slave"
			in.Nodes["slave"].Beat.Postgres, in.Nodes["slave"].Beat.Leads = cluster.PostgresPrimary, 8
			stale(*in, "master", time.Minute)
		}, "down", 4, "", []string{"M-R03 slave", "M-R10 master"}},
		{"won by a node that is gone", func(in *Input) {
			in.Term.Epoch, in.Term.Open, in.Term.Leader = 8, false, "slave"
			stale(*in, "slave", time.Minute)
			in.Nodes["master"].Beat.Leads = 0
			in.Nodes["master"].Beat.Postgres = cluster.PostgresStandby
			in.Nodes["master"].Beat.Streaming = true
		}, "down", 4, "", []string{"M-R01 slave"}},
		{"leader's postgres is down", func(in *Input) {
			in.Nodes["master"].Beat.Postgres, in.Nodes["master"].Beat.Leads = cluster.PostgresDown, 0
		}, "down", 4, "", []string{"M-R01 master", "M-P01 master"}},
		{"leader claims an older epoch", func(in *Input) { in.Nodes["master"].Beat.Leads = 6 }, "down", 4, "", []string{"M-R01 master", "M-R13 master"}},
		{"a host that was stopped in order", func(in *Input) {
			s := in.Nodes["backup"]
			s.Beat.Leaving, s.Age = true, 14*time.Second
			s.Guardian, s.GuardianAge = &cluster.Beat{Node: "backup", Kind: "witness", From: "guardian"}, time.Second
			in.Nodes["backup"] = s
		}, "degraded", 3, "master", []string{"M-R29 backup"}},
		{"a host that is being stopped", func(in *Input) { in.Nodes["backup"].Beat.Leaving = true }, "ok", 0, "master", nil},
		{"the primary's host was stopped in order", func(in *Input) {
			in.Nodes["master"].Beat.Leaving = true
			stale(*in, "master", 14*time.Second)
		}, "down", 4, "", []string{"M-R01 master"}},
		{"writes wait", func(in *Input) { in.Nodes["master"].Beat.WritesWait = "slave away and the store does not answer" }, "down", 4, "master", []string{"M-R23 master"}},
		{"leader hangs", func(in *Input) { in.Nodes["master"].Beat.Postgres = cluster.PostgresHung }, "down", 4, "", []string{"M-R01 master", "M-P02 master"}},
		{"leader stops", func(in *Input) { in.Nodes["master"].Beat.Postgres = cluster.PostgresStopping }, "down", 4, "", []string{"M-R01 master"}},
		{"guardian says frozen", func(in *Input) {
			s := in.Nodes["master"]
			s.Age = time.Minute
			s.Guardian = &cluster.Beat{Node: "master", Kind: "data", From: "guardian", Postgres: cluster.PostgresHung, Leads: 7}
			in.Nodes["master"] = s
		}, "down", 4, "", []string{"M-R01 master", "M-R11 master"}},
		{"cannot commit", func(in *Input) { in.Nodes["master"].Beat.CannotCommit = "probe took longer than 1s" }, "down", 4, "master", []string{"M-P03 master"}},
		{"commits wait", func(in *Input) { in.Nodes["master"].Beat.WaitingMS = 2500 }, "degraded", 3, "master", []string{"M-R15 master"}},
		{"no term", func(in *Input) {
			in.Term = nil
			for _, s := range in.Nodes {
				s.Beat.Term = nil
			}
		}, "down", 4, "", []string{"M-R01"}},
		{"term out of a beat is newer", func(in *Input) {
			newer := in.Term.Clone()
			newer.Epoch, newer.Leader = 8, "slave"
			in.Nodes["backup"].Beat.Term, in.Nodes["backup"].Beat.TermRev = newer, 41
			stale(*in, "backup", time.Hour) // a record only grows: even an old one counts
		}, "down", 4, "", []string{"M-R01 slave", "M-R10 backup", "M-R13 master"}},
		{"guardian beats for the primary", func(in *Input) {
			s := in.Nodes["master"]
			s.Age = time.Minute
			s.Guardian, s.GuardianAge = &cluster.Beat{Node: "master", Kind: "data", From: "guardian", Postgres: cluster.PostgresPrimary}, time.Second/10
			in.Nodes["master"] = s
		}, "degraded", 3, "master", []string{"M-R11 master"}},
		{"guardian says the postmaster is gone", func(in *Input) {
			s := in.Nodes["master"]
			s.Age = time.Minute
			s.Guardian, s.GuardianAge = &cluster.Beat{Node: "master", Kind: "data", From: "guardian", Postgres: cluster.PostgresDown}, time.Second/10
			in.Nodes["master"] = s
		}, "down", 4, "", []string{"M-R01 master", "M-R11 master"}},
		{"standby does not stream", func(in *Input) { in.Nodes["slave"].Beat.Streaming = false }, "degraded", 3, "master", []string{"M-R05 slave"}},
		{"standby starts", func(in *Input) { in.Nodes["slave"].Beat.Postgres = cluster.PostgresStarting }, "degraded", 3, "master", []string{"M-R05 slave"}},
		{"standby down", func(in *Input) { in.Nodes["slave"].Beat.Postgres = cluster.PostgresDown }, "degraded", 3, "master", []string{"M-P01 slave"}},
		{"standby hangs", func(in *Input) { in.Nodes["slave"].Beat.Postgres = cluster.PostgresHung }, "degraded", 3, "master", []string{"M-P02 slave"}},
		{"standby cloned", func(in *Input) { in.Nodes["slave"].Beat.Rejoin = "clone" }, "degraded", 3, "master", []string{"M-R07 slave"}},
		{"standby rewound", func(in *Input) { in.Nodes["slave"].Beat.Rejoin = "rewind" }, "degraded", 3, "master", []string{"M-R06 slave"}},
		{"standby lags in bytes", func(in *Input) { in.Nodes["master"].Beat.WAL.LSN += 65 << 20 }, "degraded", 3, "master", []string{"M-R08 slave"}},
		{"standby lags in time", func(in *Input) { in.Nodes["slave"].Beat.LagMS = ptr[int64](11_000) }, "degraded", 3, "master", []string{"M-R08 slave"}},
		{"standby frozen", func(in *Input) { in.Nodes["slave"].Beat.Frozen = 7 }, "ok", 0, "master", []string{"M-R17 slave"}},
		{"promise of an older epoch does not freeze", func(in *Input) { in.Nodes["slave"].Beat.Frozen = 6 }, "ok", 0, "master", nil},
		{"suspected", func(in *Input) { in.Nodes["slave"].Beat.Suspects = "no beat" }, "ok", 0, "master", []string{"M-R19 slave"}},
		{"quarantined", func(in *Input) {
			in.Term.Lost = &cluster.Lost{Node: "slave", From: 0x3000000}
			in.Nodes["slave"].Beat.Streaming = false
		}, "degraded", 3, "master", []string{"M-R09 slave"}},
		{"made anew since", func(in *Input) { in.Term.Lost = &cluster.Lost{Node: "slave", From: 0x3000000} }, "ok", 0, "master", nil},
		{"commits alone", func(in *Input) { in.Term.Sync, in.Term.K = nil, 0 }, "degraded", 3, "master", []string{"M-R04 master"}},
		{"fewer than wanted", func(in *Input) { in.Term.WantK = 2 }, "degraded", 3, "master", []string{"M-R16"}},
		{"async wants nobody", func(in *Input) { in.Term.Sync, in.Term.K, in.Term.Durability = nil, 0, cluster.Async }, "ok", 0, "master", nil},
		{"two leaders", func(in *Input) {
			in.Nodes["slave"].Beat.Leads, in.Nodes["slave"].Beat.Postgres = 7, cluster.PostgresPrimary
		}, "down", 4, "master", []string{"M-R14"}},
		{"old primary", func(in *Input) {
			in.Nodes["slave"].Beat.Leads, in.Nodes["slave"].Beat.Postgres = 6, cluster.PostgresPrimary
		}, "degraded", 3, "master", []string{"M-R13 slave"}},
		{"voter down", func(in *Input) { in.Store.Up, in.Store.Down = 2, []string{"backup"} }, "degraded", 3, "master", []string{"M-S02 backup"}},
		{"no quorum", func(in *Input) { in.Store.Up, in.Store.Down = 1, []string{"backup", "slave"} }, "degraded", 3, "master", []string{"M-S01"}},
		{"half is no quorum", func(in *Input) { in.Store.Voters, in.Store.Up = 4, 2 }, "degraded", 3, "master", []string{"M-S01"}},
		{"one node cut off", func(in *Input) { in.Nodes["backup"].Beat.StoreOK = false }, "degraded", 3, "master", []string{"M-S04 backup"}},
		{"all cut off, voters unknown", func(in *Input) {
			in.Store = nil
			for _, s := range in.Nodes {
				s.Beat.StoreOK = false
			}
		}, "degraded", 3, "master", []string{"M-S01"}},
		{"single voter", func(in *Input) { in.Store.Voters, in.Store.Up = 1, 1 }, "ok", 0, "master", []string{"M-S05"}},
		{"paused by a beat", func(in *Input) { in.Nodes["master"].Beat.Paused = true }, "degraded", 3, "master", []string{"M-C02"}},
		{"versions", func(in *Input) { in.Nodes["backup"].Beat.Version = "1.1.0" }, "ok", 0, "master", []string{"M-H04"}},
		{"no backup", func(in *Input) { in.Backup.Last = nil }, "degraded", 3, "master", []string{"M-B03"}},
		{"backup of 8 days", func(in *Input) { in.Backup.Last.Stop = now.Add(-8 * 24 * time.Hour) }, "ok", 0, "master", nil},
		{"backup too old", func(in *Input) { in.Backup.Last.Stop = now.Add(-8*24*time.Hour - 1) }, "degraded", 3, "master", []string{"M-B04"}},
		{"archive", func(in *Input) { in.Backup.ArchiveErr, in.Backup.WaitingSegments = "x", ptr[int64](9) }, "degraded", 3, "master", []string{"M-B01", "M-B02"}},
		{"backupd gone", func(in *Input) { in.Backup.Unreachable = "x" }, "degraded", 3, "master", []string{"M-B07 backup"}},
		{"never asked: not \"no backup\"", func(in *Input) {
			in.Backup = &Backup{Host: "backup", Unreachable: "x", BackupStatus: cluster.BackupStatus{UnknownSince: ptr(now)}}
		}, "degraded", 3, "master", []string{"M-B07 backup"}},
		{"a segment waits for long", func(in *Input) {
			in.Nodes["master"].Beat.Waiting = &cluster.Waiting{Segments: 1, OldestMS: 21000}
		}, "degraded", 3, "master", []string{"M-B02"}},
		{"a segment waits for a moment", func(in *Input) {
			in.Nodes["master"].Beat.Waiting = &cluster.Waiting{Segments: 1, OldestMS: 19000}
		}, "ok", 0, "master", nil},
		{"the first backup, told by the primary", func(in *Input) {
			in.Backup.Last, in.Nodes["master"].Beat.Backup = nil, &cluster.BackupLabel{Label: "F", Type: "full", Stop: now}
		}, "ok", 0, "master", nil},
		{"the store could not be asked", func(in *Input) { in.Store.Up, in.Store.UnknownSince = 0, ptr(now) }, "ok", 0, "master", nil},
		{"failed jobs", func(in *Input) { in.Backup.BackupErr, in.Backup.TestErr = "x", "y" }, "degraded", 3, "master", []string{"M-B05", "M-B06"}},
		{"no repository", func(in *Input) { in.Backup = &Backup{None: true} }, "degraded", 3, "master", []string{"M-B11"}},
		{"backups off", func(in *Input) { in.Backup = &Backup{Off: true} }, "ok", 0, "master", []string{"M-B12"}},
		{"damaged", func(in *Input) { in.Backup.Damaged = "F2 has damaged pages" }, "degraded", 3, "master", []string{"M-B10"}},
		{"missed", func(in *Input) { in.Backup.Missed = "full backup of 2026-11-22 01:00Z: no primary" }, "degraded", 3, "master", []string{"M-B09"}},
		{"said by a node", func(in *Input) {
			in.Nodes["slave"].Beat.Conditions = []cluster.Condition{Say(SlotLostWAL, "slave", "lsn", "0/3000000"), Say(SlotLostWAL, "slave", "lsn", "0/3000000")}
		}, "degraded", 3, "master", []string{"M-R12 slave"}},
		{"said by a node long ago", func(in *Input) {
			in.Nodes["backup"].Beat.Conditions = []cluster.Condition{Say(DiskNearlyFull, "backup")}
			stale(*in, "backup", time.Hour)
		}, "degraded", 3, "master", []string{"M-R10 backup"}},
		{"proxy behind", func(in *Input) {
			old := in.Term.Clone()
			old.Epoch = 6
			in.Nodes["p1"] = Seen{Beat: &cluster.Beat{Node: "p1", Kind: "proxy", Term: old, TermRev: 9, Version: "1.0.0"}}
		}, "degraded", 3, "master", []string{"M-X03 p1"}},
		{"nobody", func(in *Input) { in.Nodes = nil }, "down", 4, "", []string{"M-R18"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := herd()
			c.change(&in)
			st := Build(in)
			if st.Health != c.health || st.Primary != c.primary || ExitCode(st) != c.exit {
				t.Errorf("health %s primary %q exit %d, want %s %q %d", st.Health, st.Primary, ExitCode(st), c.health, c.primary, c.exit)
			}
			want := c.want
			if want == nil {
				want = []string{}
			}
			if d := cmp.Diff(want, codes(st)); d != "" {
				t.Errorf("conditions (-want +got):\n%s", d)
			}
		})
	}
}

// TestStaleBeatTellsNothing: of an unreachable node only its name, its place in
// the record and its age are told.
func TestStaleBeatTellsNothing(t *testing.T) {
	in := herd()
	stale(in, "slave", time.Minute)
	n, _ := Build(in).Node("slave")
	want := cluster.NodeStatus{Name: "slave", Role: "standby", State: "unreachable", Sync: "sync", SeenMS: ptr[int64](60_000)}
	if d := cmp.Diff(want, n); d != "" {
		t.Error(d)
	}
}

// TestSyncNeedsTheVeryDirectory: a directory made anew under an old name is
// another member (finding H3).
func TestSyncNeedsTheVeryDirectory(t *testing.T) {
	in := herd()
	in.Nodes["slave"].Beat.Instance = "made-anew"
	if n, _ := Build(in).Node("slave"); n.Sync != cluster.AsyncNode {
		t.Errorf("sync is %q", n.Sync)
	}
}

func TestLag(t *testing.T) {
	in := herd()
	in.Nodes["master"].Beat.WAL.LSN = 0x2000000
	in.Nodes["slave"].Beat.WAL.LSN = 0x2000000
	in.Nodes["slave"].Beat.Replay = 0x1FFFF00
	if n, _ := Build(in).Node("slave"); *n.LagBytes != 0x100 {
		t.Errorf("lag %d", *n.LagBytes)
	}
	in.Nodes["slave"].Beat.Replay = 0x2000100 // heard later than the primary
	if n, _ := Build(in).Node("slave"); *n.LagBytes != 0 {
		t.Errorf("lag %d", *n.LagBytes)
	}
	stale(in, "master", time.Minute)
	if n, _ := Build(in).Node("slave"); n.LagBytes != nil {
		t.Errorf("lag %d without a primary", *n.LagBytes)
	}
}

// TestBuildIsPure: same input, same output; the input is left alone.
func TestBuildIsPure(t *testing.T) {
	for name, make := range scenarios {
		in, same := make(), make()
		a, b := Build(in), Build(in)
		if d := cmp.Diff(a, b); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if d := cmp.Diff(same, in); d != "" {
			t.Errorf("%s: input changed: %s", name, d)
		}
		if a.Store != nil {
			a.Store.Voting[0] = "changed"
			if in.Store.Voting[0] == "changed" {
				t.Errorf("%s: result points into the input", name)
			}
		}
		if a.Backup != nil && in.Backup.WaitingSegments != nil {
			*a.Backup.WaitingSegments = 99
			if *in.Backup.WaitingSegments == 99 {
				t.Errorf("%s: result points into the input", name)
			}
		}
	}
}

// TestStatusJSON holds the form of section 9 of the design: names, nulls, LSNs
// as text; and that what is written can be read back.
func TestStatusJSON(t *testing.T) {
	for _, name := range []string{"healthy", "nothing", "degraded"} {
		st := Build(scenarios[name]())
		raw, err := json.MarshalIndent(st, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "testdata/"+name+".json", append(raw, '\n'))
		var back cluster.Status
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		again, _ := json.MarshalIndent(back, "", "  ")
		if d := cmp.Diff(string(raw), string(again)); d != "" {
			t.Errorf("%s does not survive a round trip: %s", name, d)
		}
		var keys map[string]any
		json.Unmarshal(raw, &keys)
		want := strings.Fields("schema cluster health conditions epoch primary durability sync k paused nodes store backup")
		for _, k := range want {
			if _, ok := keys[k]; !ok {
				t.Errorf("%s lacks key %q", name, k)
			}
		}
	}
}

// TestTermsRevisionWins: the highest revision is followed, not the highest age
// or the alphabet.
func TestTermsRevisionWins(t *testing.T) {
	in := herd()
	older := in.Term.Clone()
	older.Epoch = 99
	in.Nodes["slave"].Beat.Term, in.Nodes["slave"].Beat.TermRev = older, 39
	if got := Build(in).Epoch; got != 7 {
		t.Errorf("epoch %d", got)
	}
}

func TestCatalogue(t *testing.T) {
	seen := map[Code]bool{}
	last := map[byte]Code{}
	for _, e := range All() {
		if !strings.HasPrefix(string(e.Code), "M-") || len(e.Code) != 5 {
			t.Errorf("code %q", e.Code)
		}
		if seen[e.Code] {
			t.Errorf("%s twice", e.Code)
		}
		seen[e.Code] = true
		area := e.Code[2]
		if e.Code <= last[area] {
			t.Errorf("%s out of order", e.Code)
		}
		last[area] = e.Code
		if e.Title == "" || e.Text == "" || e.Hint == "" || e.Doc == "" || rank(e.Severity) == 2 && e.Severity != cluster.Info {
			t.Errorf("%s is incomplete", e.Code)
		}
		used := map[string]bool{}
		for _, p := range placeholder.FindAllString(e.Text+e.Hint, -1) {
			used[strings.Trim(p, "{}")] = true
		}
		delete(used, "node")
		args := slices.Sorted(slices.Values(e.Args))
		if got := slices.Sorted(maps.Keys(used)); !slices.Equal(got, args) {
			t.Errorf("%s: declares arguments %v, uses %v", e.Code, args, got)
		}
	}
}

// TestBuildGivesEveryArgument: no sentence that Build makes has a hole.
func TestBuildGivesEveryArgument(t *testing.T) {
	for name, make := range scenarios {
		for _, c := range Build(make()).Conditions {
			if strings.Contains(c.Text+c.Hint, "unknown") || strings.Contains(c.Text+c.Hint, "{") {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
}

func TestSay(t *testing.T) {
	got := Say(StandbyLagging, "slave", "lag", "1.2 GB")
	want := cluster.Condition{Code: "M-R08", Severity: "warning", Node: "slave", Text: "slave is 1.2 GB behind the primary",
		Hint: "look for long queries, slow storage or a slow network on slave:  manada explain slave"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := Say(StandbyLagging, "slave").Text; got != "slave is unknown behind the primary" {
		t.Errorf("without its argument: %q", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a code outside the catalogue passed")
		}
	}()
	Say("M-Z99", "")
}

func TestReference(t *testing.T) {
	golden(t, "../../docs/reference-conditions.md", []byte(Reference()))
}

// TestEveryConstantIsInTheCatalogue reads the source: a code that is declared
// and forgotten in the catalogue would panic in Say.
func TestEveryConstantIsInTheCatalogue(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), "conditions_") {
			continue
		}
		raw, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(raw), "\n") {
			_, code, ok := strings.Cut(line, `Code = "`)
			if !ok {
				continue
			}
			n++
			if _, ok := Lookup(Code(strings.Trim(code, `"`))); !ok {
				t.Errorf("%s is declared and not in the catalogue", code)
			}
		}
	}
	if n != len(All()) {
		t.Errorf("%d constants, %d entries", n, len(All()))
	}
	if reflect.ValueOf(byCode).Len() != n {
		t.Errorf("codes repeat")
	}
}

// A herd that is being restored is down, says how far it is, and does not call
// a fault what was stopped for it.
func TestRestoring(t *testing.T) {
	in := herd()
	in.Term.Restore = &cluster.Restore{ID: "r1", Type: "time", Target: "2026-11-22 04:00:00+00", Set: "20261122-030000F"}
	in.Term.K, in.Term.Sync = 0, nil
	m, s := in.Nodes["master"].Beat, in.Nodes["slave"].Beat
	m.Postgres, m.Leads, m.CannotCommit, m.Op = cluster.PostgresDown, 0, "the herd is being restored", "restoring 20261122-030000F 43%"
	s.Postgres, s.Streaming, s.Upstream = cluster.PostgresDown, false, ""
	st := Build(in)
	if st.Health != cluster.HealthDown || st.Primary != "" || len(st.Conditions) != 1 || st.Conditions[0].Code != string(Restoring) {
		t.Fatalf("%s, primary %q: %v", st.Health, st.Primary, st.Conditions)
	}
	if c := st.Conditions[0]; !strings.Contains(c.Text, "to time 2026-11-22 04:00:00+00 by master: restoring 20261122-030000F 43%") || !strings.Contains(c.Hint, "--undo") {
		t.Errorf("it says %+v", c)
	}
	stale(in, "master", time.Minute)
	if c := Build(in).Conditions[0]; !strings.Contains(c.Text, "it goes on when it is back") {
		t.Errorf("the restoring host is silent: %+v", c)
	}
}

// Nobody is promised to take over while the store has no quorum: the hint names
// the hosts that bring it back.
func TestHintWithoutQuorum(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Input)
		want   string
		not    string
	}{
		{"with a quorum", func(*Input) {}, "takes over by itself", "quorum"},
		{"asked just now", func(in *Input) { in.Store.Up, in.Store.Down = 1, []string{"master", "backup"} }, "1 of 3 voters up): start backup, master", "by itself"},
		{"it cannot be asked", func(in *Input) {
			in.Store.UnknownSince = ptr(now.Add(-time.Minute))
			in.Nodes["slave"].Beat.StoreOK = false
			stale(*in, "backup", time.Minute)
		}, "no node heard from reaches it): start backup, master", "by itself"},
		{"nothing is known of it", func(in *Input) {
			in.Store = nil
			in.Nodes["slave"].Beat.StoreOK = false
			in.Nodes["backup"].Beat.StoreOK = false
		}, "start master", "by itself"},
	} {
		in := herd()
		stale(in, "master", time.Minute)
		c.change(&in)
		i := slices.IndexFunc(Build(in).Conditions, func(c cluster.Condition) bool { return c.Code == string(PrimaryUnreachable) })
		if i < 0 {
			t.Errorf("%s: no %s", c.name, PrimaryUnreachable)
			continue
		}
		if hint := Build(in).Conditions[i].Hint; !strings.Contains(hint, c.want) || strings.Contains(hint, c.not) {
			t.Errorf("%s: the hint is %q", c.name, hint)
		}
	}
}
