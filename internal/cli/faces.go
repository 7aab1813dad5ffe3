package cli

import (
	"context"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/verb"
)

// Herd is a herd that was found as every command finds it, for the faces of
// other programs (internal/compat).
type Herd struct{ c *caller }

// OpenHerd finds a herd and an identity to ask with.
func OpenHerd(where config.Where, environ []string) (*Herd, error) {
	c, err := (&app{where: where, environ: environ}).open()
	if err != nil {
		return nil, err
	}
	return &Herd{c}, nil
}

// Hosts are the herd's hosts on this machine.
func (h *Herd) Hosts() []*config.Config { return h.c.hosts }

// Status is the herd's, from the first host that answers.
func (h *Herd) Status(ctx context.Context) (cluster.Status, error) { return h.c.status(ctx) }

// Ask reads from one host of this machine, and from no other.
func (h *Herd) Ask(ctx context.Context, host *config.Config, v verb.Verb, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return h.c.client().Call(ctx, host.AdvertiseOn(host.Ports.Peer), host.Node, v, nil, out)
}

// ErrorText is what an error says and what to type next, as a command prints it.
func ErrorText(err error) (message, hint string) {
	_, message, hint = explain(err)
	return message, hint
}
