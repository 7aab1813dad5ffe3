//go:build !race

// The race detector makes sync.Pool drop what it holds.

package classify

import "testing"

func TestSmallTextsCostNoMemory(t *testing.T) {
	sql := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = $1 and lower(x) = 'y' order by count(*)")
	if n := testing.AllocsPerRun(100, func() { Text(sql) }); n > 0 {
		t.Errorf("%.0f allocations", n)
	}
}
