package postgres

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"manada/internal/cluster"
)

// SenderStart is a walsender of another role than ours that began to stream under
// a name which only members bear.
type SenderStart struct {
	PID  int
	At   time.Time // zero where log_timezone is not UTC
	Role string
	Name string
}

// senderLog finds them in PostgreSQL's log, where only a superuser or the host's
// file can keep one out (log_replication_commands, log_line_prefix): a walsender that comes and goes between two
// looks leaves no other trace. Such a session cannot change its name any more.
type senderLog struct {
	mu    sync.Mutex
	from  int64
	open  bool          // from is known
	found []SenderStart // not taken yet
}

// senderLogMost is how much of what the log has got since the last look is read,
// from its end.
const senderLogMost = 4 << 20

// senderStarted is a line of it, with our log_line_prefix: role, @, database,
// name. All that follows the first line of a message is indented, and names
// hold no line ends: nobody can write one with words of his own.
var senderStarted = regexp.MustCompile(`^(\S+ \S+) (\S+) \[(\d+)\] walsender (.*) LOG:  received replication command: START_REPLICATION `)

// StrangerBegan reads what PostgreSQL's log has got since it was last read, and
// says whether there is one that the next observation will tell of. It costs
// little where nothing is logged: it is for looking more often than PostgreSQL
// can be asked.
func (i *Instance) StrangerBegan() bool {
	l := &i.senderLog
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found = append(l.found, l.read(i.cfg.LogFile)...)
	return len(l.found) > 0
}

// look gives those that were found since it was last called.
func (l *senderLog) look(log string) []SenderStart {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := append(l.found, l.read(log)...)
	l.found = nil
	return found
}

// read reads what the log has got since the last time; the first time nothing.
func (l *senderLog) read(log string) []SenderStart {
	f, err := os.Open(log)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	switch {
	case !l.open:
		l.open, l.from = true, st.Size()
	case st.Size() < l.from: // it was cut
		l.from = 0
	}
	from := max(l.from, st.Size()-senderLogMost)
	if st.Size() == from {
		return nil
	}
	b := make([]byte, st.Size()-from)
	n, err := f.ReadAt(b, from)
	if err != nil && err != io.EOF {
		return nil
	}
	whole := strings.LastIndexByte(string(b[:n]), '\n') + 1 // the rest of a line comes next time
	l.from = from + int64(whole)
	return senderStarts(string(b[:whole]))
}

func senderStarts(text string) (out []SenderStart) {
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "START_REPLICATION") { // a log may be long
			continue
		}
		m := senderStarted.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		// Roles and databases may have any sign in them; members' names have no
		// blank, and stand at the end.
		role, rest, _ := strings.Cut(m[4], "@")
		name := rest[strings.LastIndexByte(rest, ' ')+1:]
		if role == cluster.RoleReplication || !cluster.IsMemberName(name) {
			continue
		}
		s := SenderStart{Role: role, Name: name}
		s.PID, _ = strconv.Atoi(m[3])
		if m[2] == "UTC" {
			s.At, _ = time.Parse("2006-01-02 15:04:05.999", m[1])
		}
		out = append(out, s)
	}
	return out
}
