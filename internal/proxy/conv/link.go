package conv

import (
	"manada/internal/cluster"
)

// Link is a connection to a server: what was asked of it and not answered, and
// what it holds of its clients. It is bound to one conversation at a time, which
// alone touches it from Granted to Give or Gone.
type Link struct {
	Node  string // the member's name
	Epoch uint64 // of its primary; 0: a standby
	PID   uint32 // the server's process id

	q       queue
	status  byte // of the last ReadyForQuery: I, T or E
	tail    bool // something of a batch was sent behind the last Sync, Query or FunctionCall
	failing bool // the server skips everything up to a Sync that was not sent yet
	failed  bool // an error came since the last ReadyForQuery
	data    bool // COPY's data were sent since the last command
	copying bool // the server reads COPY's data, and the client has not ended them
	fatal   bool // the server has said its last words
	cancels int  // requests to cancel under way
	haunted bool // one may come yet, whoever has it

	skip  int  // bytes of its message under way still to come
	drops bool // and they are for nobody

	news []string // settings that it has reported in the unit under way

	has      cluster.LSN // what a standby has replayed at least
	reported *report     // settings as the server reported them last
	vars     vars        // said to it by conversations
	stmts    statements
	plain    *stmt  // its unnamed one
	numbers  uint64 // how often nextval may have been called in it
	loaded   bool   // a library was, which nothing takes out again
}

// NewLink describes a connection that has just logged in: the member's name, the
// epoch of its primary (0: a standby), the settings that it has reported and the
// status of its first ReadyForQuery.
func NewLink(node string, epoch uint64, reported map[string]string, status byte) *Link {
	return &Link{Node: node, Epoch: epoch, reported: NewReport(reported), status: status}
}

// Reported are the settings as the server has reported them last.
func (l *Link) Reported() map[string]string { return l.reported.values }

// replica says whether the server can have done nothing but read: it is a standby, or
// was one when it last said something, and its client asks for no more.
func (l *Link) replica() bool {
	return l.Epoch == 0 && l.reported.values["in_hot_standby"] == "on" && l.reported.values["default_transaction_read_only"] == "on"
}

// free says whether nothing is owed and nothing stands open.
func (l *Link) free() bool { return !l.tail && l.skip == 0 && (l.q.n == 0 || !l.q.owes()) }

// idle says whether the link is outside of a transaction, too.
func (l *Link) idle() bool { return l.q.n == 0 && l.free() && l.status == 'I' && !l.fatal }
