package health

import (
	"strings"
	"testing"

	"manada/internal/cluster"
)

// TestCausesComeFirst: a full disk is told before what comes from it, and a
// standby that does not stream names its receiver's error.
func TestCausesComeFirst(t *testing.T) {
	cs := Sort([]cluster.Condition{
		Say(NoBackup, ""), Say(StoreUnreachable, "slave"), Say(DiskNearlyFull, "backup"), Say(CommitsAlone, "master"), Say(DiskFull, "slave", "path", "/data", "free", "0 MiB"),
	})
	if cs[0].Code != string(DiskFull) || !strings.Contains(cs[0].Hint, "make room") {
		t.Errorf("first comes %+v", cs[0])
	}
	if cs = Sort(append(cs, Say(NoPrimary, "master", "why", "x"))); cs[0].Code != string(NoPrimary) {
		t.Errorf("before a herd that is down comes %+v", cs[0])
	}
	in := herd()
	slave := in.Nodes["slave"].Beat
	slave.Streaming, slave.ReceiverError = false, `could not connect to the primary server: FATAL: role "manada_replication" is not permitted to log in`
	for _, c := range Build(in).Conditions {
		if c.Code == string(StandbyNotStreaming) && strings.Contains(c.Text, "is not permitted to log in") {
			return
		}
	}
	t.Errorf("%+v", Build(in).Conditions)
}
