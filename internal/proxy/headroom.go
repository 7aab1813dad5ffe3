package proxy

import (
	"context"
	"os"
	"runtime/debug"
	gometrics "runtime/metrics"
	"time"
)

// headroom is how much garbage may gather, in bytes: so much that log-ins, which make
// some, seldom pay for a collection, and that it does not grow with the clients.
const headroom = 4 << 20

// KeepHeadroom sets when the process collects garbage until ctx is done. It is for a
// process that is a proxy and nothing else. GOGC in the environment wins.
func KeepHeadroom(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []gometrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := 0; ; {
		gometrics.Read(live)
		// to set it stops the process for a moment
		if p := percent(live[0].Value.Uint64()); 10*p < 9*now || 10*p > 11*now {
			debug.SetGCPercent(p)
			now = p
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
}

// percent is the GOGC that leaves headroom above so many bytes in use. A large heap
// gets a quarter more.
func percent(live uint64) int {
	return int(min(max(headroom*100/max(live, 1), 25), 800))
}
