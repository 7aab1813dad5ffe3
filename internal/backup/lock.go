package backup

import (
	"context"
	"errors"

	"manada/internal/blob"
)

// errLockLost is why a command stops whose lock somebody else may now have.
var errLockLost = errors.New("the lock on the stanza was lost, as the connection to the repository host broke")

type stanzaLock struct {
	locks  []blob.Lock
	cancel context.CancelCauseFunc
}

// lockStanza keeps two backups or expiries of one stanza from running at once.
// It takes both names under which versions of pgBackRest lock a backup. The
// context that it returns ends, with the reason as its cause, if the lock is lost.
func lockStanza(ctx context.Context, s blob.Storage, stanza string) (*stanzaLock, context.Context, error) {
	held, cancel := context.WithCancelCause(ctx)
	l := &stanzaLock{cancel: cancel}
	for _, name := range []string{stanza + "-backup", stanza + "-backup-1"} {
		b, err := s.Lock(ctx, name)
		if err != nil {
			l.unlock()
			if errors.Is(err, blob.ErrLocked) {
				err = &Error{Code: CodeLock, Text: "another backup or expire of stanza " + stanza + " is running", Err: err,
					Hint: "Wait for it to end, or end it."}
			}
			return nil, nil, err
		}
		l.locks = append(l.locks, b)
		if lost := b.Lost(); lost != nil {
			go func() {
				select {
				case <-lost:
					cancel(errLockLost)
				case <-held.Done():
				}
			}()
		}
	}
	return l, held, nil
}

func (l *stanzaLock) unlock() {
	l.cancel(nil)
	for _, b := range l.locks {
		b.Unlock()
	}
}

// because gives the reason why a context ended in place of "context canceled".
func because(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
