package postgres

import (
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// receiverWords finds out why a standby does not stream. PostgreSQL tells that
// in its log only: what the walreceiver said since it last streamed.
type receiverWords struct {
	mu     sync.Mutex
	from   int64 // where the log ended when it last streamed
	looked time.Time
	words  string
}

// receiverLog is how much of the log's end is read, in bytes.
const receiverLog = 32 << 10

// receiverLine is an error that only a walreceiver reports. Our lc_messages is C.
var receiverLine = regexp.MustCompile(`(?:FATAL|ERROR):  ((?:could not connect to the primary server|could not start WAL streaming|could not receive data from WAL stream|` +
	`could not send data to WAL stream|database system identifier differs|primary server contains no more WAL|highest timeline \d+ of the primary|` +
	`terminating walreceiver|could not identify system|invalid response from primary server|could not receive timeline history file).*)`)

// look reads the log's end once a second while streaming is missed.
func (w *receiverWords) look(log string, now time.Time, missed bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.looked) < time.Second {
		return w.words
	}
	w.looked = now
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	if !missed {
		w.from, w.words = st.Size(), ""
		return ""
	}
	if st.Size() < w.from { // it was cut
		w.from = 0
	}
	b := make([]byte, receiverLog)
	n, err := f.ReadAt(b, max(w.from, st.Size()-receiverLog))
	if err != nil && err != io.EOF {
		return w.words
	}
	if found := receiverLine.FindAllStringSubmatch(string(b[:n]), -1); len(found) > 0 {
		w.words = strings.TrimSpace(found[len(found)-1][1])
	}
	return w.words
}
