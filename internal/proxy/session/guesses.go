package session

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// guesses slows wrong passwords: after some of them an address may have the next
// proof for that role looked at only after a pause that grows, and after many for
// whatever roles it is slowed for all of them. Nobody is locked out: a role stays
// open to other addresses, and who waits gets his turn.
type guesses struct {
	mu   sync.Mutex
	keys map[guess]*wrong
	now  func() time.Time // nil: time.Now
}

// guess is an address and a role, or with "" an address alone.
type guess struct {
	host netip.Prefix
	role string
}

type wrong struct {
	count int
	next  time.Time // nothing is looked at before
}

const (
	freeGuesses     = 3  // of one role
	freeOfAddress   = 50 // of all roles
	firstPause      = 250 * time.Millisecond
	longestPause    = 4 * time.Second
	pauseOfAddress  = 50 * time.Millisecond
	forgetGuesses   = 2 * time.Minute
	maxGuessKeys    = 20000
	patienceOfGuess = 12 * time.Second // below the time that a client has to log in
)

// try waits for its turn and lets check look at a proof. turn is false when that
// took too long and nothing was looked at.
func (g *guesses) try(ctx context.Context, host netip.Prefix, role string, check func() (right bool)) (turn bool) {
	began := g.clock()
	for {
		wait := g.attempt(host, role, check)
		if wait == 0 {
			return true
		}
		if g.clock().Add(wait).Sub(began) > patienceOfGuess {
			return false
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}

// attempt checks if it is somebody's turn, else it returns how long to wait. What
// is checked costs no more than a few hashes, so it is done under the lock:
// many at once are no way around the pause.
func (g *guesses) attempt(host netip.Prefix, role string, check func() bool) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock()
	one, all := g.keys[guess{host, role}], g.keys[guess{host, ""}]
	for _, w := range []*wrong{one, all} {
		if w != nil && now.Before(w.next) {
			return w.next.Sub(now)
		}
	}
	if check() {
		delete(g.keys, guess{host, role})
		return 0
	}
	g.note(guess{host, role}, now, func(n int) time.Duration {
		if n < freeGuesses {
			return 0
		}
		return min(firstPause<<min(n-freeGuesses, 8), longestPause)
	})
	g.note(guess{host, ""}, now, func(n int) time.Duration {
		if n < freeOfAddress {
			return 0
		}
		return pauseOfAddress
	})
	return 0
}

func (g *guesses) note(k guess, now time.Time, pause func(n int) time.Duration) {
	w := g.keys[k]
	if w == nil || now.Sub(w.next) > forgetGuesses {
		if g.keys == nil {
			g.keys = map[guess]*wrong{}
		}
		g.makeRoom(now)
		w = &wrong{}
		g.keys[k] = w
	}
	w.count++
	w.next = now.Add(pause(w.count))
}

// makeRoom forgets what is old, and some of what is not when names are invented
// faster than that: their addresses are slowed all the same.
func (g *guesses) makeRoom(now time.Time) {
	if len(g.keys) < maxGuessKeys {
		return
	}
	for k, w := range g.keys {
		if now.Sub(w.next) > forgetGuesses {
			delete(g.keys, k)
		}
	}
	for k := range g.keys {
		if len(g.keys) < maxGuessKeys {
			return
		}
		if k.role != "" {
			delete(g.keys, k)
		}
	}
}

func (g *guesses) clock() time.Time {
	if g.now != nil {
		return g.now()
	}
	return time.Now()
}
