package cli

import (
	"context"
	"net"
	"time"

	"manada/internal/config"
)

// readyWithin bounds how long systemd is kept waiting. A host whose herd has no
// quorum yet, as the first one after a power failure, counts as started then.
const readyWithin = 20 * time.Second

// awaitReady waits until what is typed after the start of this host works: its
// agent answers and reaches the store, its proxy accepts connections.
func awaitReady(ctx context.Context, c *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for !serves(ctx, c) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func serves(ctx context.Context, c *config.Config) bool {
	if c.HasAgent() {
		s, err := ownStatus(ctx, c)
		if err != nil || s.Store == nil || !s.Store.HasQuorum() {
			return false
		}
	}
	if c.Has(config.ProxyRole) {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", c.AdvertiseOn(c.Ports.SQL))
		if err != nil {
			return false
		}
		conn.Close()
	}
	return true
}
