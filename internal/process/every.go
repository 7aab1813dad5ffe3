package process

import (
	"context"
	"time"
)

// every does something at once and again and again, until ctx ends. What takes
// longer than the time between two is not done twice for it.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
