package proxy_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"manada/internal/proxy"
)

// A soft limit of files is none: the program raises it to the hard one, so that only
// that counts.
func TestSoftLimitIsRaised(t *testing.T) {
	const child = "MANADA_TEST_FILES"
	if os.Getenv(child) != "" {
		var open []*os.File
		for range 200 {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, f)
		}
		t.Logf("%d files, the limit is %d", len(open), proxy.Files())
		return
	}
	cmd := exec.Command("sh", "-c", `ulimit -Sn 100; ulimit -Hn 1234; exec "$0" -test.v -test.run='^TestSoftLimitIsRaised$'`, os.Args[0])
	cmd.Env = append(os.Environ(), child+"=yes")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "200 files, the limit is 1234") {
		t.Errorf("%v\n%s", err, out)
	}
}
