package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/rotate"
	"manada/internal/verb"
)

// How often a host looks whether its certificate ends soon, at least, and how
// soon it tries again when nobody signed it. A third of a year is left for that.
const (
	renewalEvery = time.Hour
	renewalAgain = time.Minute
)

// keepRenewing calls renew every hour and when the certificate's renewal is due,
// sooner after a failure.
func keepRenewing(ctx context.Context, id *pki.Identity, log *slog.Logger, renew func(context.Context) error) {
	for {
		one, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := renew(one)
		wait := min(renewalEvery, max(time.Until(id.RenewalDue()), time.Second))
		if err != nil {
			log.Error("cannot renew this host's certificate", "error", err.Error())
			wait = renewalAgain
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// keepCertificate renews this host's certificate: with the authority's key out
// of the store, else by asking the other members. Running processes see the new
// one by themselves, PostgreSQL is told.
func (h *hostAgent) keepCertificate(ctx context.Context) {
	keepRenewing(ctx, h.id, h.log, func(ctx context.Context) error {
		done, err := h.renew(ctx, time.Now())
		if done {
			h.log.Info("renewed this host's certificate", "not_after", h.id.NotAfter())
		}
		return err
	})
}

func (h *hostAgent) renew(ctx context.Context, now time.Time) (done bool, err error) {
	if !h.id.NeedsRenewal(now) {
		return false, nil
	}
	ca, err := h.openCA(ctx)
	if err == nil {
		done, err = h.id.Renew(ca, now, func(c cluster.Certificate) error {
			if _, err := h.register(ctx, c); err != nil {
				return err
			}
			return settle(ctx)
		})
	}
	if err != nil {
		var asked error
		if done, asked = renewThrough(ctx, h.id, h.known().Peers, now); asked != nil {
			return false, errors.Join(err, asked)
		}
	}
	if done && h.db != nil {
		if err := h.db.ReloadCertificate(ctx); err != nil {
			return true, err
		}
	}
	return done, nil
}

// settle waits until the other hosts have read that a new certificate is good:
// they refuse one that they do not know.
func settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(rotate.Settle):
		return nil
	}
}

// renewThrough asks members, one after the other, to sign this host's
// certificate anew when it ends soon: the way of a proxy, which cannot open the
// authority's key.
func renewThrough(ctx context.Context, id *pki.Identity, peers map[string]string, now time.Time) (done bool, err error) {
	if !id.NeedsRenewal(now) {
		return false, nil
	}
	err = errors.New("renew certificate: no member is known")
	cl := peer.Client{TLS: id.TLSFor, DialTimeout: 3 * time.Second}
	for _, node := range slices.Sorted(maps.Keys(peers)) {
		var r pki.Renewed
		if err = cl.Call(ctx, peers[node], node, verb.Renew, nil, &r); err != nil {
			continue
		}
		if err = settle(ctx); err != nil {
			break
		}
		if err = id.InstallCertificate([]byte(r.Cert)); err == nil {
			return true, nil
		}
	}
	return false, fmt.Errorf("renew certificate through the other hosts: %w", err)
}
