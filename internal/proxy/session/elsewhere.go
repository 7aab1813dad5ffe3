package session

import (
	"context"
	"io"
	"net"
	"sync"

	"manada/internal/proxy/wire"
)

// passedOn stands behind the key of a request to cancel that another proxy of the herd
// has passed on: it goes no further. Keys of ours are shorter, by far, than a key may be.
const passedOn = "\x00passed on"

// maxPassing bounds the requests that are passed on at once: whoever reaches the port can
// send them. More are dropped, as PostgreSQL may drop any.
const maxPassing = 16

// passOn gives a request to cancel for a session that is not here to the herd's other
// proxies: behind a load balancer it comes to any of them. Only the one that made the
// key does anything with it. It waits until all have read it, or ctx is done.
func (c *client) passOn(ctx context.Context, key cancelKey) {
	defer c.passing.Add(-1)
	if c.passing.Add(1) > maxPassing {
		c.Log.Info("cancel request for an unknown session dropped: too many at once", "remote", remote(c.conn))
		return
	}
	request := wire.AppendCancel(nil, key.pid, []byte(key.secret+passedOn))
	var all sync.WaitGroup
	for _, addr := range c.Others(ctx) {
		all.Go(func() {
			if err := deliver(ctx, addr, request); err != nil {
				c.Log.Info("cancel request not passed on", "proxy", addr, "error", err)
			}
		})
	}
	all.Wait()
}

// deliver sends a request and waits for the end of the connection: then it was read.
func deliver(ctx context.Context, addr string, request []byte) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(request); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}
