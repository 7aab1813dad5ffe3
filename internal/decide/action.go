package decide

import (
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// Verb names what an action does.
type Verb string

// The actions. "Long" ones run beside the loop; Local.Busy names them meanwhile.
const (
	Found         Verb = "found"          // long: initdb, roles, control table
	Create        Verb = "create"         // the first term record
	ReadStore     Verb = "read-store"     // a linearizable read, now
	Settle        Verb = "settle"         // read and rewrite the record: outcome known again
	Swap          Verb = "swap"           // compare-and-swap Term
	Withdraw      Verb = "withdraw"       // swap Term, then remove the promise from disk
	Promise       Verb = "promise"        // write and fsync the promise of Epoch
	DropPromise   Verb = "drop-promise"   // remove it: a newer epoch rules
	CutUpstream   Verb = "cut-upstream"   // credential unlinked, conninfo empty, reload
	EndReceiver   Verb = "end-receiver"   // SIGTERM, gone from the process table
	ReadPosition  Verb = "read-position"  // where the WAL ends, now that nobody adds to it
	StartStandby  Verb = "start-standby"  // long
	StartFounding Verb = "start-founding" // long: epoch 1 only
	Stop          Verb = "stop"           // long: Mode fast or immediate
	Prepare       Verb = "prepare"        // mark the request, begin a checkpoint and with it to hand over to To
	Undrain       Verb = "undrain"        // forget what Prepare began
	HandOver      Verb = "hand-over"      // long: end senders, stop fast
	Promote       Verb = "promote"        // long: to Timeline
	WriteControl  Verb = "write-control"  // the control row of Epoch with Nonce
	SetSync       Verb = "set-sync"       // render Sync, reload
	Probe         Verb = "probe"          // see a commit waiting
	EndSenders    Verb = "end-senders"    // terminate walsenders PIDs
	Follow        Verb = "follow"         // stream from To under the name of Epoch
	Rewind        Verb = "rewind"         // long: from To
	Clone         Verb = "clone"          // long: stop if it runs, copy from To
	ArchiveEnd    Verb = "archive-end"    // long: archive all WAL up to LSN, its end
	FetchWAL      Verb = "fetch-wal"      // long: WAL out of the archive up to LSN, and replay it
	Answer        Verb = "answer"         // close the request with Note
	ArchiveTail   Verb = "archive-tail"   // long: archive all WAL up to its end, remember it
	RestoreData   Verb = "restore-data"   // long: replace the data directory by a backup
	RecoverToEnd  Verb = "recover-to-end" // long: stop, and recover without a target
	RecoverAlong  Verb = "recover-along"  // long: stop, and recover along Timeline, exactly to LSN
	UndoRestore   Verb = "undo-restore"   // long: put back what is left of the old data
)

// Action is one step. Only the fields that its verb needs are set.
type Action struct {
	Verb     Verb
	Term     *cluster.Term
	Epoch    uint64
	Timeline cluster.Timeline
	Nonce    string
	To       string
	Sync     cluster.SyncSetting
	PIDs     []int
	Mode     string
	LSN      cluster.LSN
	Note     string
	OK       bool
	Lossy    bool // refused because commits would be lost
	Request  string
}

// String is one line, used by logs and scenario files.
func (a Action) String() string {
	var b strings.Builder
	b.WriteString(string(a.Verb))
	add := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	if a.Term != nil {
		add("%s", Describe(a.Term))
	}
	if a.Epoch != 0 {
		add("e%d", a.Epoch)
	}
	if a.Timeline != 0 {
		add("timeline=%d", a.Timeline)
	}
	if a.To != "" {
		add("%s", a.To)
	}
	if a.LSN != 0 {
		add("%s", a.LSN)
	}
	if a.Verb == SetSync {
		add("'%s'", a.Sync)
	}
	if a.Mode != "" {
		add("%s", a.Mode)
	}
	if len(a.PIDs) > 0 {
		add("%v", a.PIDs)
	}
	if a.Note != "" {
		add("(%s)", a.Note)
	}
	return b.String()
}

// Describe is the term on one line.
func Describe(t *cluster.Term) string {
	if t == nil {
		return "no term"
	}
	names := make([]string, len(t.Sync))
	for i, m := range t.Sync {
		names[i] = m.Name
	}
	state := "open"
	if !t.Open {
		state = "won"
	}
	s := fmt.Sprintf("e%d %s %s sync=[%s] k=%d", t.Epoch, t.Leader, state, strings.Join(names, ","), t.K)
	if r := t.Restore; r != nil {
		s += " restore=" + r.ID
		if r.Touched {
			s += "(touched)"
		}
	}
	if d := t.Drain; d != nil {
		phase := "soft"
		if d.Hold {
			phase = "hold"
		}
		s += fmt.Sprintf(" drain=%s@%d->%s(%s)", d.ID, d.Epoch, d.To, phase)
	}
	for _, p := range t.Promises {
		s += fmt.Sprintf(" promise=%s@%d:%s", p.Node, p.WALEpoch, p.LSN)
		if p.For != "" {
			s += "->" + p.For
		}
	}
	return s
}

// Decision is what to do and why. No action means: wait.
type Decision struct {
	Actions []Action
	Rule    string // stable id of the rule that decided
	Reason  string // a sentence for people: log, status, explain, history
	// Renew: this node may renew the leader's lease.
	Renew bool
	// CannotCommit is what the beat tells the others about this leader.
	CannotCommit string
	// WritesWait is why commits wait on this leader for something outside of it.
	WritesWait string
	// Suspects is the leader that this node suspects, for the beat.
	Suspects string
	// Cause is why, without what this node does about it.
	Cause string
	// Rejoin is "rewind" or "clone" while the directory must be made anew.
	Rejoin string
	// Stuck is why a restore does not go on without an operator.
	Stuck string
	// Diverges is why this node is not rewound any more, without an operator.
	Diverges string
	// Certified is the epoch for which this node presents its certificate.
	Certified uint64
}

func wait(format string, args ...any) Decision { return Decision{Reason: fmt.Sprintf(format, args...)} }

func do(a Action, format string, args ...any) Decision {
	return Decision{Actions: []Action{a}, Reason: fmt.Sprintf(format, args...)}
}
