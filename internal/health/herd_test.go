package health

import (
	"time"

	"manada/internal/cluster"
)

var now = time.Date(2026, 11, 22, 5, 10, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// herd is the healthy herd of the seed: master, slave, and the backup host as
// witness. Tests break parts of it.
func herd() Input {
	term := &cluster.Term{
		SystemID: "7321", Epoch: 7, Leader: "master", Open: true, K: 1, WantK: 1, Durability: cluster.Quorum,
		Sync:           []cluster.Member{{Name: "slave", Instance: "i-slave"}},
		LastOpenLeader: cluster.Member{Name: "master", Instance: "i-master"},
	}
	beat := func(name, kind string) *cluster.Beat {
		return &cluster.Beat{
			Schema: 1, Cluster: "orders", Node: name, Instance: "i-" + name, Kind: kind, From: "agent",
			Version: "1.0.0", StoreOK: true, Postgres: cluster.PostgresNone, Term: term, TermRev: 40,
		}
	}
	master, slave, backup := beat("master", "data"), beat("slave", "data"), beat("backup", "witness")
	master.Postgres, master.Leads, master.Timeline = cluster.PostgresPrimary, 7, 7
	master.WAL = cluster.Position{Epoch: 7, LSN: 0x16B3740}
	slave.Postgres, slave.Timeline, slave.Streaming = cluster.PostgresStandby, 7, true
	slave.WAL, slave.Replay = cluster.Position{Epoch: 7, LSN: 0x16B3740}, 0x16B3740
	slave.LagMS, slave.Certified, slave.MayLead = ptr[int64](0), 7, true
	slave.Upstream = "slave@e7"
	return Input{
		Cluster: "orders", Self: "slave", Now: now, Term: term, TermRev: 40,
		Nodes: map[string]Seen{
			"master": {Beat: master, Age: 410 * time.Millisecond},
			"slave":  {Beat: slave, Age: 0},
			"backup": {Beat: backup, Age: 520 * time.Millisecond},
		},
		Expected: []Expected{{Name: "master", Kind: "data"}, {Name: "slave", Kind: "data"}, {Name: "backup", Kind: "witness"}},
		Store:    &cluster.StoreStatus{Voters: 3, Up: 3, Leader: "slave", Voting: []string{"backup", "master", "slave"}},
		Backup: &Backup{Host: "backup", BackupStatus: cluster.BackupStatus{
			Last:           &cluster.BackupLabel{Label: "20261122-030000F", Type: "full", Stop: now.Add(-2*time.Hour - 5*time.Minute)},
			RestorableFrom: ptr(now.Add(-14 * 24 * time.Hour)), RestorableTo: ptr(now),
			WaitingSegments: ptr[int64](0), RestoreTested: ptr(now.Add(-26 * time.Hour)),
		}},
	}
}

// stale makes a node silent since d.
func stale(in Input, name string, d time.Duration) {
	s := in.Nodes[name]
	s.Age, s.GuardianAge = d, d
	in.Nodes[name] = s
}

// scenarios are the situations whose screens are kept in testdata.
var scenarios = map[string]func() Input{
	"healthy": herd,
	"degraded": func() Input {
		in := herd()
		stale(in, "slave", 84*time.Second)
		in.Term.Sync, in.Term.K = nil, 0
		in.Self = "master"
		return in
	},
	"primary_lost": func() Input {
		in := herd()
		stale(in, "master", 3400*time.Millisecond)
		in.Nodes["slave"].Beat.Streaming = false
		in.Nodes["slave"].Beat.Suspects = "nothing heard of master for 3.4s"
		in.Store.Up, in.Store.Down = 2, []string{"master"}
		return in
	},
	"failover": func() Input {
		in := herd()
		stale(in, "master", 3400*time.Millisecond)
		in.Term.Epoch, in.Term.Leader, in.Term.Open = 8, "slave", false
		in.Nodes["slave"].Beat.Streaming = false
		in.Store.Up, in.Store.Down = 2, []string{"master"}
		return in
	},
	"down": func() Input {
		in := herd()
		in.Nodes["master"].Beat.Postgres, in.Nodes["master"].Beat.Leads = cluster.PostgresDown, 0
		stale(in, "slave", 20*time.Minute)
		in.Backup.ArchiveErr = "no connection to backup:8432"
		in.Backup.WaitingSegments = ptr[int64](31)
		return in
	},
	"store_lost": func() Input {
		in := herd()
		in.Store.Up, in.Store.Leader, in.Store.Down = 1, "", []string{"backup", "slave"}
		for _, s := range in.Nodes {
			s.Beat.StoreOK = false
		}
		return in
	},
	"writes_wait": func() Input {
		in := herd()
		in.Self = "master"
		stale(in, "slave", 14*time.Second)
		stale(in, "backup", 14*time.Second)
		in.Nodes["master"].Beat.StoreOK = false
		in.Nodes["master"].Beat.WritesWait = "slave away and the store does not answer"
		in.Store.Up, in.Store.Leader, in.Store.Down = 1, "", []string{"backup", "slave"}
		return in
	},
	"unknown": func() Input { // neither the store nor the repository could be asked
		in := herd()
		in.Store.UnknownSince = ptr(now.Add(-14 * time.Second))
		in.Backup.Unreachable, in.Backup.UnknownSince = "TLS handshake timeout", ptr(now.Add(-40*time.Second))
		in.Backup.WaitingSegments = nil
		in.Nodes["master"].Beat.Waiting = &cluster.Waiting{Segments: 6, OldestMS: 25000}
		return in
	},
	"paused": func() Input {
		in := herd()
		in.Paused = true
		return in
	},
	"nothing": func() Input {
		in := herd()
		return Input{Cluster: in.Cluster, Now: in.Now, Expected: in.Expected}
	},
	"rewinding": func() Input {
		in := herd()
		m, s := in.Nodes["master"], in.Nodes["slave"]
		in.Term.Epoch, in.Term.Leader, in.Term.Sync, in.Term.K = 8, "slave", nil, 0
		s.Beat.Postgres, s.Beat.Leads, s.Beat.Timeline, s.Beat.Streaming = cluster.PostgresPrimary, 8, 8, false
		m.Beat.Postgres, m.Beat.Leads, m.Beat.Rejoin, m.Beat.Op = cluster.PostgresDown, 0, "rewind", "pg_rewind from slave"
		return in
	},
	"three_standbys": func() Input {
		in := herd()
		in.Term.K, in.Term.WantK = 1, 2
		in.Term.Sync = append(in.Term.Sync, cluster.Member{Name: "replica-in-another-data-centre-far-away", Instance: "x"})
		far := *in.Nodes["slave"].Beat
		far.Node, far.Instance = "replica-in-another-data-centre-far-away", "x"
		far.Replay, far.LagMS = 0x1000, ptr[int64](14*60*1000+300)
		in.Nodes["master"].Beat.WAL.LSN += 0x50000000
		in.Nodes["slave"].Beat.Replay += 0x50000000
		in.Nodes[far.Node] = Seen{Beat: &far, Age: 600 * time.Millisecond}
		third := *in.Nodes["slave"].Beat
		third.Node, third.Instance, third.Streaming, third.Version = "third", "y", false, "1.1.0"
		in.Nodes["third"] = Seen{Beat: &third, Age: 700 * time.Millisecond}
		in.Backup.Last = nil
		in.Backup.RestoreTested = nil
		in.Backup.RestorableFrom = nil
		return in
	},
}
