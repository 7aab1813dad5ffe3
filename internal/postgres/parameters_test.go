package postgres

import (
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
)

// What the server would not start with is told before anything is changed, and
// what it runs with is told with where it comes from.
func TestParametersAndFacts(t *testing.T) {
	n := newNode(t, "alpha")
	ctx := deadline(t, 30*time.Second)
	must(t, n.Found(ctx))
	must(t, n.StartFounding(ctx))
	_, err := n.SetSync(ctx, cluster.CommitAlone())
	must(t, err)
	for _, p := range [][3]string{
		{"work_mem", "7MB", ""}, {"my.own", "x", ""}, {"work_mem", "banana", `invalid value for parameter "work_mem": "banana"`},
		{"work_men", "7MB", `unrecognized configuration parameter "work_men"`}, {"max_connections", "0", "outside the valid range"}, {"fsync", "off", "cannot be set"},
		{"session_preload_libraries", "auto_explain", ""}, {"session_preload_libraries", "auto_explain,nosuch", `could not access file "nosuch"`},
	} {
		err := n.CheckValue(ctx, p[0], p[1])
		if p[2] == "" && err != nil || p[2] != "" && (err == nil || !strings.Contains(err.Error(), p[2])) {
			t.Errorf("%s = %s: %v, want %q", p[0], p[1], err, p[2])
		}
	}
	if !n.NeedsRestart(ctx, "shared_buffers") || n.NeedsRestart(ctx, "work_mem") {
		t.Error("what needs a restart is not known")
	}
	must(t, n.Reconfigure(ctx, map[string]string{"Work_Mem": "7MB"}, nil))
	all := n.Rendered()
	for _, want := range []Rendered{{"Work_Mem", "7MB", "user"}, {"shared_buffers", "128MB", "default"}, {"recovery_target_timeline", "latest", "manada"}} {
		if !slices.Contains(all, want) {
			t.Errorf("%+v is not among what is rendered", want)
		}
	}
	// What a mistake asked for, and nobody asks for any more, needs no restart.
	pending := func(want bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); slices.Contains(n.observe().PendingRestart, "jit_provider") != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("a restart is pending for %q", n.observe().PendingRestart)
			}
		}
	}
	must(t, n.Reconfigure(ctx, map[string]string{"Work_Mem": "7MB", "jit_provider": "nosuch"}, nil))
	pending(true)
	must(t, n.Reconfigure(ctx, map[string]string{"Work_Mem": "7MB"}, nil))
	pending(false)
	f, err := n.Facts(ctx)
	must(t, err)
	if !strings.HasPrefix(f.Version, "15.") || f.InRecovery || f.ArchiveMode != "on" || f.MaxSenders != 20 || f.MaxSlots != 20 || f.Senders != 0 || !strings.HasSuffix(f.Size, "MB") {
		t.Errorf("facts: %+v", f)
	}
}
