package process

import (
	"context"
	"crypto/tls"
	"log/slog"

	"manada/internal/cluster"
	"manada/internal/guardian"
	"manada/internal/peer"
	"manada/internal/pki"
)

// Guardian runs the parent of this host's postmaster. It ends only when told
// to, or with SIGTERM, and then not without its postmaster.
func Guardian(ctx context.Context, args []string, version string, log *slog.Logger) error {
	cfg, err := guardian.ParseArgs(args)
	if err != nil {
		return err
	}
	cfg.Version, cfg.Logger = version, log
	cfg.Beater = func(ctx context.Context, to guardian.BeatConfig, beats <-chan cluster.Beat) {
		push(ctx, to, beats, log)
	}
	return guardian.Run(ctx, cfg)
}

// push sends the guardian's beats to the other hosts' agents.
func push(ctx context.Context, to guardian.BeatConfig, beats <-chan cluster.Beat, log *slog.Logger) {
	id, err := pki.Load(to.IdentityDir)
	if err != nil {
		log.Error("cannot beat", "error", err.Error())
		return
	}
	p := peer.NewPusher(peer.Config{Cluster: id.Cluster(), Node: id.Node(), Kind: id.Kind(), Log: log,
		TLS: func(string) *tls.Config { return id.ClientTLSAny() }})
	defer p.Close()
	addrs := map[string]string{}
	for _, a := range to.Peers {
		addrs[a] = a
	}
	p.SetPeers(addrs)
	for {
		select {
		case <-ctx.Done():
			return
		case b, open := <-beats:
			if !open {
				return
			}
			if err := p.Publish(b); err != nil {
				log.Debug("cannot push a beat", "error", err.Error())
			}
		}
	}
}
