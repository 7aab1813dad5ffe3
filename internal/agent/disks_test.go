package agent

import (
	"strings"
	"testing"

	"manada/internal/health"
)

func TestJudgeDisk(t *testing.T) {
	const gib, mib = 1 << 30, 1 << 20
	for _, c := range []struct {
		name       string
		size, free int64
		noFiles    bool
		want       health.Code // "": nothing is told
		says       string
	}{
		{"room", 100 * gib, 50 * gib, false, "", ""},
		{"nearly full", 100 * gib, 9 * gib, false, health.DiskNearlyFull, "91 % full"},
		{"full", 100 * gib, 10 * mib, false, health.DiskFull, "10 MiB left"},
		{"no byte", gib, 0, false, health.DiskFull, "0 MiB left"},
		{"no inode", 100 * gib, 50 * gib, true, health.DiskFull, "no inode left"},
		{"small and empty", 40 * mib, 36 * mib, false, "", ""},
		{"small and full", 40 * mib, mib, false, health.DiskFull, "1 MiB"},
	} {
		got, told := judgeDisk("db1", "/data/pg_wal", c.size, c.free, c.noFiles)
		if told != (c.want != "") || told && (got.Code != string(c.want) || !strings.Contains(got.Text, c.says) || !strings.Contains(got.Text, "/data/pg_wal")) {
			t.Errorf("%s: %v, %+v", c.name, told, got)
		}
	}
}
