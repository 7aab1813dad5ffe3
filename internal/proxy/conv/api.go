package conv

import (
	"time"

	"manada/internal/cluster"
	"manada/internal/proxy/wire"
)

// Side is one of the connections of a conversation.
type Side uint8

const (
	Client Side = iota // the application
	Main               // the server that takes everything; the primary on 5431
	Reader             // a standby that answers a unit that certainly only reads
	sides
)

// EventKind is what has happened.
type EventKind uint8

const (
	// Bytes have come from a side: all that is there and was not consumed. They come
	// before the side is Gone. With those of a client that has no Main and wants none
	// there may be a Link: a server that is at hand, to be taken (Take) instead of wanted,
	// or left alone.
	Bytes EventKind = iota
	// Granted answers Want: Link is the side's server from now on.
	Granted
	// Denied answers Want: there is no server, and Err says why. Without an Err Reader is
	// not to be had, and Main may be elsewhere: it is wanted again.
	Denied
	// Gone is a side that ended: Why, and for servers Err when there is more to say.
	Gone
	// Written answers AskWritten: the primary has flushed and inserted so far.
	Written
	// Replayed answers AskReplayed: the reader has replayed so far. 0, also of
	// Written: not known.
	Replayed
	// Named answers AskNames.
	Named
	// Cancel: the client wants what it runs to be cancelled. CancelDone: PostgreSQL
	// has read the request that SendCancel asked for.
	Cancel
	CancelDone
	// CancelLost instead: nobody knows whether PostgreSQL reads it yet.
	CancelLost
	// Drain tells the phase of a switchover, see Phase.
	Drain
	// Expired is a timer that was armed.
	Expired
	// Kill ends the client with Err, as soon as that may be said between two messages.
	Kill
	// Enter, before anything else: the client is told Welcome as soon as it has Main.
	Enter
	// Shutdown ends the client as soon as nothing is owed to it outside a transaction.
	Shutdown
	// Promoted: Main's node was a standby when the link was made, and leads now.
	Promoted
	// Limited: other Limits hold. What is under way is measured from now.
	Limited
	// SendsNoMore: the client has said so while it waits for a server. See Gone for
	// one that has not been read to its end.
	SendsNoMore
)

// Why a side ended.
type Why uint8

const (
	Closed  Why = iota // its stream ended, or broke
	Deposed            // a newer epoch was won than the server's
	Silent             // its host does not acknowledge what was sent to it
)

// Phase of a planned switchover (protocol-2.md, section 5).
type Phase uint8

const (
	NoDrain Phase = iota
	Soft          // all goes on; old transactions are waited for
	Hold          // nothing new begins on the server's epoch
	Over          // the hold's time is up: open transactions that have not sent COMMIT end
)

// String is the phase for people.
func (p Phase) String() string { return [...]string{"none", "soft", "hold", "over"}[p] }

// Timer is something that may take too long. Each is armed at most once at a time.
type Timer uint8

const (
	QueryTimer  Timer = iota // a query under way
	TxTimer                  // a transaction
	IdleTxTimer              // a client that is idle in a transaction
	IdleTimer                // a client that is idle
	Timers
)

// Event is one thing that has happened. Which fields count depends on Kind.
type Event struct {
	Kind    EventKind
	Side    Side
	Why     Why
	Phase   Phase
	Timer   Timer
	Bytes   []byte
	Link    *Link
	Err     *wire.Error
	Flushed cluster.LSN // Written, Replayed
	Insert  cluster.LSN // Written
	Limits  *Limits
}

// EffectKind is what the driver is to do.
type EffectKind uint8

const (
	// Send writes B to the side. B points into the event's bytes or into the
	// effects' own buffer: it is written or copied before the next Step.
	Send EffectKind = iota
	// Stop reading from the side, and Start again: what was not consumed is then
	// offered again, also when nothing new has come.
	Stop
	Start
	// Want a server for the side. Granted or Denied answers, or the client leaves.
	Want
	// Take the server that was offered with the bytes: it is Main from now on.
	Take
	// Withdraw what was wanted. Nothing answers it any more.
	Withdraw
	// Give the side's server back. The link is the driver's again. A side that was
	// told Gone is not given back.
	Give
	// AskWritten asks the primary for its position in the WAL; the question is sent
	// after this moment. AskReplayed asks the reader's node, which may take a moment
	// to come to At: it is answered then, or with less when the driver's patience
	// ends (which then denies Want for a while).
	AskWritten
	AskReplayed
	// AskNames has the names (Config.Dangerous) read anew. Named answers, when they were
	// read after this moment, or cannot be.
	AskNames
	// SendCancel asks PostgreSQL to cancel what the side's server does.
	SendCancel
	// Arm a timer; D = 0 disarms it.
	Arm
	// Hurry: the client is to end and is in the middle of a message, of which no more may
	// come: whoever does not read is not waited for. Its time for last words begins.
	Hurry
	// Pinned: the client keeps its Main server, and Text says why.
	Pinned
	// Warn is for the log.
	Warn
	// End: the client's connection is closed once what was sent is with it. No
	// effect follows, every server was given back before.
	End
)

// How a server is given back.
type How uint8

const (
	Clean   How = iota // another client may have it as it is
	Discard            // after DISCARD ALL only
	Close              // nobody may have it
)

// Effect is one thing to do, in order.
type Effect struct {
	Kind  EffectKind
	Side  Side
	How   How
	Timer Timer
	D     time.Duration
	At    cluster.LSN // AskReplayed
	B     []byte
	Text  string
}

// Effects belongs to the driver, which clears it before each Step and reuses it.
type Effects struct {
	List  []Effect
	Count Counts
	Marks Marks
	own   []byte // what Send's bytes point into when they are not the event's

	spare, used [][]byte // buffers of conversations, and those that effects may point into yet
}

// Reset makes fx empty. Slices that were handed out before are void.
func (fx *Effects) Reset() {
	fx.List, fx.own, fx.Count, fx.Marks = fx.List[:0], fx.own[:0], Counts{}, Marks{}
	for _, b := range fx.used {
		if len(fx.spare) < maxSpare {
			fx.spare = append(fx.spare, b)
		}
	}
	fx.used = fx.used[:0]
}

// maxSpare is how many buffers are kept for the next conversation that needs one.
const maxSpare = 64

// Counts is what happened in a Step, for the statistics.
type Counts struct {
	Queries      int // SELECTs answered by Main
	Reads        int // SELECTs answered by Reader
	Repeated     int // reads given to Main after Reader declined
	Unreplicated int // commits that were no success
	Unknown      int // 08007: the client does not know what became of its command
}

// Any says whether something was counted.
func (n *Counts) Any() bool {
	return n.Queries|n.Reads|n.Repeated|n.Unreplicated|n.Unknown != 0
}

// Marks are what began and ended in a Step, for whoever has a clock. What ended did so
// before anything began.
type Marks struct {
	Began Beginning
	// Answered are the ReadyForQuery that the client was given, Ended those of them
	// outside of a transaction.
	Answered, Ended int
	// ClientParses and Binds are the client's, ServerParses what servers were given.
	ClientParses, ServerParses, Binds int
}

// Any says whether something began or ended.
func (m *Marks) Any() bool {
	return m.Answered|m.Ended|m.ClientParses|m.ServerParses|m.Binds|int(m.Began) != 0
}

// Beginning is what began when a server was given something while nothing was owed.
type Beginning uint8

const (
	BeganNothing     Beginning = iota
	BeganUnit                  // something to be answered, within a transaction
	BeganTransaction           // the same, outside of one
)
