package herd

import (
	"errors"
	"fmt"
)

// Hinted is an error with what to type next.
type Hinted struct {
	Err  error
	Hint string
}

func (h *Hinted) Error() string { return h.Err.Error() }

func (h *Hinted) Unwrap() error { return h.Err }

// ErrUsage marks what the caller has to choose differently: nothing was done.
var ErrUsage = errors.New("wrong usage")

// misuse is an error that is ErrUsage, without saying so.
type misuse struct{ error }

func (m misuse) Unwrap() []error { return []error{m.error, ErrUsage} }

func misused(hint, format string, args ...any) error {
	return &Hinted{misuse{fmt.Errorf(format, args...)}, hint}
}
