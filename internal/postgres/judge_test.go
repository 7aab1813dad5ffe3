package postgres

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestJudge: what would keep PostgreSQL from starting, or everybody from
// logging in, is known before it does.
func TestJudge(t *testing.T) {
	uid, gid := os.Getuid(), os.Getgid()
	cfg, err := Config{DataDir: t.TempDir(), RunDir: t.TempDir(), Port: 5432, Node: "n"}.withDefaults()
	must(t, err)
	rules := []string{
		"hostssl all all 10.0.0.0/8 scram-sha-256",
		"hostssl all all 10.0.0.0/33 scram-sha-256",
		"hostssl all all 10.0.0.0/8 scram",
		`hostssl "a b",c +group samenet cert clientname=CN`,
		"hostssl all all 10.0.0.1/32 scram-sha-256 map=x",
		`local all all reject`,
	}
	j, err := Judge(deadline(t, time.Minute), cfg.BinDir, uid, gid, map[string]string{
		"shared_bufers": "1GB", "work_mem": "lots", "maintenance_work_mem": "64MB",
		"shared_preload_libraries": "auto_explain, pg_stat_statementz", "session_preload_libraries": "auto_explain",
		"local_preload_libraries": "$libdir/no/such", "jit_provider": "llvmjot",
	}, rules)
	must(t, err)
	if got := slices.Sorted(maps.Keys(j.Settings)); !slices.Equal(got, []string{"jit_provider", "local_preload_libraries", "shared_bufers", "shared_preload_libraries", "work_mem"}) {
		t.Errorf("settings: %q", j.Settings)
	}
	if !strings.Contains(j.Settings["shared_preload_libraries"], "pg_stat_statementz") {
		t.Errorf("%q", j.Settings["shared_preload_libraries"])
	}
	if !strings.Contains(j.Rules[1], "invalid CIDR mask") || !strings.Contains(j.Rules[2], `invalid authentication method "scram"`) || j.Rules[0] != "" || j.Rules[5] != "" {
		t.Errorf("rules: %v", j.Rules)
	}
	if j.Rules[4] == "" { // map is for ident, peer, gss, sspi and cert
		t.Errorf("rules: %v", j.Rules)
	}
	j, err = Judge(deadline(t, time.Minute), cfg.BinDir, uid, gid, map[string]string{"work_mem": "16MB", "shared_preload_libraries": ""}, rules[:1])
	if err != nil || len(j.Settings)+len(j.Rules) > 0 {
		t.Errorf("of what is right: %v, %v", j, err)
	}
}
