package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/container"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/verb"
)

func (a *app) healthCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Say whether this host does its work",
		Long: `Say whether this host does its work, for a container's health check: its agent
answers and reaches the store, its PostgreSQL leads or streams, its proxy takes
connections. It asks nobody else; manada status tells of the whole herd.` + exits(exitFailed, exitUsage),
		Example: "  manada health && echo it does",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.health(c.Context()) },
	}
}

func (a *app) health(ctx context.Context) error {
	c, err := a.oneHost()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if !serves(ctx, c) {
		return fail(exitFailed, "manada status", "%s does not serve yet, or no more", c.Node)
	}
	if container.Pending(c) {
		return fail(exitFailed, "the log of first-run says how far it is", "the new database has not got everything yet")
	}
	if !c.Has(config.Database) {
		return nil
	}
	st, err := ownStatus(ctx, c)
	if err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if n.Name == c.Node && (n.State == cluster.StateRunning && st.Primary == c.Node || n.State == cluster.StateStreaming) {
			return nil
		} else if n.Name == c.Node {
			return fail(exitFailed, "manada explain "+c.Node, "PostgreSQL on %s neither leads nor streams: %s", c.Node, n.State)
		}
	}
	return fail(exitFailed, "manada status", "%s is not known in its herd yet", c.Node)
}

// ownStatus asks this host's agent.
func ownStatus(ctx context.Context, c *config.Config) (cluster.Status, error) {
	var s cluster.Status
	id, err := pki.Load(c.IdentityDir())
	if err != nil {
		return s, err
	}
	cl := peer.Client{TLS: id.TLSFor}
	err = cl.Call(ctx, c.AdvertiseOn(c.Ports.Peer), c.Node, verb.Status, nil, &s)
	return s, err
}
