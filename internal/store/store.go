package store

import (
	"context"
	"encoding/json"
	"errors"

	"manada/internal/cluster"
)

var (
	// ErrConflict: somebody else changed it first; this write was not applied
	// and never will be.
	ErrConflict = errors.New("the record was changed by somebody else")
	// ErrOtherSystem is an ErrConflict whose cause is that the store belongs to
	// another database system (two herds under one name).
	ErrOtherSystem = errors.New("the store belongs to another database system")
	// ErrUnknown: the request may have been applied, or may still be. For the
	// record only a later successful Read and Touch (or Swap) settles it. A read
	// that got no answer returns it too.
	ErrUnknown = errors.New("no definite answer from the store")
	// ErrUnreachable: the request certainly never left this process.
	ErrUnreachable = errors.New("no member of the store can be reached")
	// ErrRefused: the store answered that it will not do this (too large, not
	// permitted); certainly not applied.
	ErrRefused = errors.New("refused by the store")
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("not in the store")
	// ErrExists: there is one already.
	ErrExists = errors.New("already in the store")
	// ErrRemoved: the host was taken out of the herd and has not joined anew.
	ErrRemoved = errors.New("the host was removed from the herd")
	// ErrInvalid: the value breaks an invariant of the record and was not sent.
	ErrInvalid = errors.New("invalid record")
	// ErrNoQuorum: the change would leave, or finds, too few living voters.
	ErrNoQuorum = errors.New("not enough living voters")
	// ErrRolledBack: the store knows less than it once did (see HighWater).
	ErrRolledBack = errors.New("the store has been rolled back")
)

// Store is a client's view of the herd's shared state. Every method ends by
// the client's deadline (default 1 s) or the context's, whichever is earlier.
// Implementations are safe for concurrent use.
//
// Writes fail with errors for which errors.Is finds ErrConflict (also
// ErrExists, ErrNotFound where the method says so), ErrRefused and
// ErrUnreachable, all of which mean "certainly not applied", or ErrUnknown.
type Store interface {
	// Read is one linearizable read of everything a decision needs.
	Read(ctx context.Context) (Snapshot, error)
	// Create writes the first record; ErrConflict when there is one already or
	// the store belongs to another system. Returns its modification revision.
	Create(ctx context.Context, t *cluster.Term) (rev int64, err error)
	// Swap replaces the record if its modification revision is still rev and the
	// store's system identifier is next.SystemID. Returns the new revision.
	Swap(ctx context.Context, rev int64, next *cluster.Term) (newRev int64, err error)
	// Touch rewrites the record unchanged under a new revision. Its success
	// proves that no write made against an older revision can still be applied,
	// which settles an unknown outcome (finding H2).
	Touch(ctx context.Context, rev int64) (newRev int64, err error)
	// Renew writes the leader's renewal counter. ErrConflict when a newer epoch
	// already renews: an old leader never overwrites a newer one's counter.
	Renew(ctx context.Context, l Lease) error
	// Watch sends a snapshot at once, after every change of what Read reads and
	// at least once per re-read interval (default 1 s) while the store answers.
	// A slow reader sees only the newest. The channel is closed when ctx ends or
	// the store is closed; while the store does not answer nothing is sent, so
	// judge by the age of Snapshot.Sent.
	Watch(ctx context.Context) <-chan Snapshot

	// CreateRequest files an operator's request; ErrExists if the id is taken.
	// Of the requests that are finished only the newest 20 are kept.
	CreateRequest(ctx context.Context, r Request) error
	// FinishRequest adds the result; the first result stays (ErrConflict).
	// ErrNotFound when there is no such request.
	FinishRequest(ctx context.Context, id string, res Result) error
	// MarkRequest sets an option of it to "true". ErrConflict when it has the
	// mark, has a result, or is changed meanwhile; ErrNotFound when there is no
	// such request.
	MarkRequest(ctx context.Context, id, option string) error
	// DeleteRequest removes it; none is no error.
	DeleteRequest(ctx context.Context, id string) error

	// SetPause pauses the herd, nil resumes.
	SetPause(ctx context.Context, p *Pause) error

	// AppendEvent numbers and stores the event and returns its number. The
	// newest 1000 are kept.
	AppendEvent(ctx context.Context, e Event) (n int64, err error)
	// Events returns events with a number above after, oldest first; when there
	// are more than limit (0: no limit) the newest of them. They may be a moment
	// old: whichever member is asked answers by itself.
	Events(ctx context.Context, after int64, limit int) ([]Event, error)

	// PutNode registers a node or replaces its registration. ErrRemoved when it
	// was removed.
	PutNode(ctx context.Context, n Node) error
	// Nodes lists the registered nodes by name.
	Nodes(ctx context.Context) ([]Node, error)
	// RemoveNode removes a registration (none is no error) and takes back all
	// its certificates, in one transaction.
	RemoveNode(ctx context.Context, name string) error
	// RemovedNodes lists the names that are refused.
	RemovedNodes(ctx context.Context) ([]string, error)
	// ReadmitNode ends that: a host of this name joins anew.
	ReadmitNode(ctx context.Context, name string) error

	// Registry returns the list of the certificates that are good; one of Rev 0
	// when there is none.
	Registry(ctx context.Context) (cluster.Registry, error)
	// UpdateRegistry writes what change makes of the list, beginning again when
	// somebody else wrote meanwhile, and returns what was written. An error of
	// change is returned as it is and nothing is written.
	UpdateRegistry(ctx context.Context, change func(*cluster.Registry) error) (cluster.Registry, error)

	// Config returns the shared configuration and its revision; nil and 0 when
	// there is none.
	Config(ctx context.Context) (cfg json.RawMessage, rev int64, err error)
	// PutConfig replaces it if its revision is still rev (0: there is none).
	PutConfig(ctx context.Context, rev int64, cfg json.RawMessage) (newRev int64, err error)

	// CreateToken stores a join token; ErrExists if the id is taken. Tokens that
	// expired more than a day ago are removed.
	CreateToken(ctx context.Context, t Token) error
	// UpdateToken lets change turn the token's data into new data and writes
	// that if nobody else wrote meanwhile, else begins again with the newer data.
	// An error of change is returned as it is and nothing is written.
	// ErrNotFound when there is no such token. Whether it has expired is
	// change's to judge.
	UpdateToken(ctx context.Context, id string, change func(data []byte) ([]byte, error)) error
	// DropTokens forgets all tokens: who could read the store could join with
	// one.
	DropTokens(ctx context.Context) error

	// Secret returns the herd's opaque secret; ErrNotFound before CreateSecret.
	Secret(ctx context.Context) ([]byte, error)
	// CreateSecret stores the first one; ErrExists afterwards.
	CreateSecret(ctx context.Context, secret []byte) error
	// UpdateSecret writes what change makes of it, beginning again when somebody
	// else wrote meanwhile. An error of change is returned as it is and nothing
	// is written.
	UpdateSecret(ctx context.Context, change func([]byte) ([]byte, error)) error

	// Status says how the store itself is. An error means that no member
	// answered; the status then still carries what is known.
	Status(ctx context.Context) (Status, error)
	// Close ends watches and connections.
	Close() error
}
