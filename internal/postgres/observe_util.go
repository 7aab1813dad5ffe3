package postgres

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"manada/internal/cluster"
)

// waitTracker remembers when each waiting commit was first seen: PostgreSQL
// tells when its statement began, which may have been long before it waited.
type waitTracker struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

func (w *waitTracker) oldest(now time.Time, waiting rows) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := make(map[string]time.Time, len(waiting))
	var age time.Duration
	for _, r := range waiting {
		key := string(r[0]) + " " + string(r[1])
		t, ok := w.seen[key]
		if !ok {
			t = now
		}
		seen[key] = t
		age = max(age, now.Sub(t))
	}
	w.seen = seen
	return age
}

func epochTime(b []byte) time.Time {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(int64(f * 1e6)).UTC()
}

func parseTimeline(b []byte) cluster.Timeline {
	n, _ := strconv.ParseUint(string(b), 16, 32)
	return cluster.Timeline(n)
}

// timelineAt finds the timeline of the WAL that ends at lsn in the history of
// newest: a timeline's file begins with a copy of its parent's.
func (i *Instance) timelineAt(newest cluster.Timeline, lsn cluster.LSN) cluster.Timeline {
	h, err := i.history(newest)
	if err != nil {
		return newest
	}
	for _, p := range h {
		if lsn <= p.at {
			return p.parent
		}
	}
	return newest
}

// renderedUpstream is the application_name in upstream.conf, "" if none.
func (i *Instance) renderedUpstream() string {
	b, err := os.ReadFile(i.run(upstreamFile))
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "primary_conninfo = "); ok {
			return conninfoValue(strings.ReplaceAll(strings.Trim(v, "'"), "''", "'"), "application_name")
		}
	}
	return ""
}

// conninfoValue reads one key of a key=value connection string as we write
// them: values without spaces, perhaps quoted.
func conninfoValue(s, key string) string {
	for f := range strings.FieldsSeq(s) {
		if v, ok := strings.CutPrefix(f, key+"="); ok {
			return strings.Trim(v, "'")
		}
	}
	return ""
}
