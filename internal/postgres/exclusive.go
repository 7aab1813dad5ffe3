package postgres

import (
	"errors"
	"fmt"
	"sync"
)

// ErrBusy: another operation that changes the instance is under way. Nothing
// was done.
var ErrBusy = errors.New("another operation is under way on this data directory")

// exclusive lets one operation that changes the instance run at a time: two
// copies into one directory, or a start beside one, would destroy it.
type exclusive struct {
	mu      sync.Mutex
	running string // "" when none is
}

// alone runs f unless another operation runs: then it is ErrBusy, and names both.
func (e *exclusive) alone(what string, f func() error) error {
	e.mu.Lock()
	running := e.running
	if running == "" {
		e.running = what
	}
	e.mu.Unlock()
	if running != "" {
		return fmt.Errorf("%s: %w: %s", what, ErrBusy, running)
	}
	defer func() {
		e.mu.Lock()
		e.running = ""
		e.mu.Unlock()
	}()
	return f()
}
