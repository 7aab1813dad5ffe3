package health

import (
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
)

// What is said of a takeover, for PostgreSQL's death and for the loss of the
// primary's host: votes, copies and log-ins are counted.
func TestOutlook(t *testing.T) {
	voters := func(in *Input, voting string, down ...string) {
		in.Store.Voting = strings.Fields(voting)
		in.Store.Voters, in.Store.Down = len(in.Store.Voting), down
		in.Store.Up = in.Store.Voters - len(down)
	}
	for _, c := range []struct {
		name          string
		change        func(*Input)
		process, host bool
		says          string
	}{
		{"three voters", func(*Input) {}, true, true, "safe: slave can take over"},
		{"two voters", func(in *Input) { voters(in, "master slave") }, true, false, "not for the loss of that host"},
		{"three, the witness is down", func(in *Input) { voters(in, "backup master slave", "backup") }, true, false, "not for the loss of that host"},
		{"three, the primary's own is down", func(in *Input) { voters(in, "backup master slave", "master") }, true, true, "safe: slave"},
		{"the primary's host has no vote", func(in *Input) { voters(in, "backup slave third") }, true, true, "safe: slave"},
		{"one voter, not the primary's host", func(in *Input) { voters(in, "backup") }, true, true, "safe: slave"},
		{"no quorum", func(in *Input) { voters(in, "backup master slave", "backup", "slave") }, false, false, "no quorum"},
		{"the store could not be asked", func(in *Input) { in.Store.UnknownSince = ptr(now) }, false, false, "not known"},
		{"the standby does not reach the store", func(in *Input) { in.Nodes["slave"].Beat.StoreOK = false }, false, false, "takes 1 of slave, none is able to"},
		{"the standby is away", func(in *Input) { stale(*in, "slave", time.Minute) }, false, false, "takes 1 of slave, none is able to"},
		{"the standby was not heard for a moment", func(in *Input) { stale(*in, "slave", 1600*time.Millisecond) }, false, false, "none is able to"},
		{"its agent says nothing", func(in *Input) {
			s := in.Nodes["slave"]
			s.Age, s.Guardian, s.GuardianAge = 1300*time.Millisecond, &cluster.Beat{Node: "slave", Kind: "data", From: "guardian", Postgres: cluster.PostgresStandby}, 200*time.Millisecond
			in.Nodes["slave"] = s
		}, false, false, "none is able to"},
		{"its agent is down", func(in *Input) {
			s := in.Nodes["slave"]
			s.Age, s.Guardian = time.Minute, &cluster.Beat{Node: "slave", Kind: "data", From: "guardian", Postgres: cluster.PostgresStandby}
			in.Nodes["slave"] = s
		}, false, false, "none is able to"},
		{"k = 0, as after an impostor", func(in *Input) { in.Term.Sync, in.Term.K = nil, 0 }, false, false, "no standby holds"},
		{"the herd's things in the database are kept broken", func(in *Input) {
			in.Extra = append(in.Extra, Say(Unfurnished, "master", "what", "manada_proxy", "why", "NOLOGIN", "by", "postgres"))
		}, false, false, "not certain: slave holds all commits"},
		{"new connections fail", func(in *Input) {
			in.Extra = append(in.Extra, Say(ConnectionsFail, "master", "why", "too many clients"))
		}, false, false, "not certain: slave holds all commits"},
		{"the standby's disk is full", func(in *Input) {
			in.Extra = append(in.Extra, Say(DiskFull, "slave", "path", "/data", "free", "0 MiB"))
		}, false, false, "none is able to"},
		{"the primary's disk is full", func(in *Input) {
			in.Extra = append(in.Extra, Say(DiskFull, "master", "path", "/data", "free", "0 MiB"))
		}, true, true, "safe: slave"},
		{"paused", func(in *Input) { in.Paused = true }, false, false, "paused"},
	} {
		in := herd()
		c.change(&in)
		o := Failover(Build(in))
		if o.Process != c.process || o.Host != c.host || !strings.Contains(o.Text, c.says) {
			t.Errorf("%s: %+v", c.name, o)
		}
	}
}
