package voter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"manada/internal/store"
)

// retryEvery paces what a newcomer has to wait for.
const retryEvery = 250 * time.Millisecond

// join makes this host a new learner of a running store and prepares its first
// start. A member that already bears its name or address is an earlier life of
// it, whose votes nobody can take back: it is removed first, which only a
// quorum of the others can do.
func (c *Config) join(ctx context.Context) (*embed.Config, error) {
	ctx, cancel := context.WithTimeout(ctx, c.JoinTimeout)
	defer cancel()
	cli, err := c.client(ctx, c.Join)
	if err != nil {
		return nil, err
	}
	defer cli.Close()
	if err := c.removeFormerSelf(ctx, cli); err != nil {
		return nil, fmt.Errorf("join the store at %s: %w", strings.Join(c.Join, ", "), err)
	}
	added, all, err := c.addSelf(ctx, cli)
	if err != nil {
		return nil, fmt.Errorf("join the store at %s: %w", strings.Join(c.Join, ", "), err)
	}
	if err := c.discardHalfMade(); err != nil {
		return nil, err
	}
	c.joined = true
	c.Log.Info("added to the store as a learner", "member_id", fmt.Sprintf("%x", added.ID))
	return c.etcd(c.initialCluster(added, all), embed.ClusterStateFlagExisting, "")
}

func (c *Config) client(ctx context.Context, urls []string) (*store.Client, error) {
	tlsConfig, err := c.clientTLS()
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Config{Cluster: "-", Endpoints: urls, TLS: tlsConfig, Log: c.Log})
}

func (c *Config) isSelf(m store.Member) bool {
	return m.Name == c.Name || slices.Contains(m.PeerURLs, c.AdvertisePeer)
}

func (c *Config) removeFormerSelf(ctx context.Context, cli *store.Client) error {
	return c.retry(ctx, func() error {
		members, err := cli.Members(ctx) // linearizable: there is a quorum, or an error
		if err != nil {
			return fmt.Errorf("a quorum of its voters must answer: %w: %w", err, store.ErrNoQuorum)
		}
		i := slices.IndexFunc(members, c.isSelf)
		if i < 0 {
			return nil
		}
		if err := c.refuseIfAlive(ctx, cli, members[i].ID); err != nil {
			return err
		}
		c.Log.Warn("removing the member that this voter was before its data was lost",
			"member_id", fmt.Sprintf("%x", members[i].ID), "learner", members[i].Learner)
		err = cli.RemoveMember(ctx, members[i].PeerURLs[0])
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return errAgain // look once more: a name and an address may be two members
	})
}

// refuseIfAlive: we have not started, so whoever answers as that member is
// another host under our name or address.
func (c *Config) refuseIfAlive(ctx context.Context, cli *store.Client, id uint64) error {
	st, err := cli.Status(ctx)
	if err != nil {
		return err
	}
	for _, m := range st.Members {
		if m.ID == id && m.Up {
			return fmt.Errorf("a member %q runs at %s already; give this host a name and an address of its own: %w",
				m.Name, strings.Join(m.ClientURLs, ", "), store.ErrExists)
		}
	}
	return nil
}

var errAgain = errors.New("again")

func (c *Config) addSelf(ctx context.Context, cli *store.Client) (added store.Member, all []store.Member, err error) {
	err = c.retry(ctx, func() error {
		added, all, err = cli.AddLearner(ctx, []string{c.AdvertisePeer})
		if err == nil || !errors.Is(err, store.ErrExists) {
			return err
		}
		// An attempt whose answer was lost did it.
		all, err = cli.Members(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, c.isSelf)
		if i < 0 || !all[i].Learner || all[i].Name != "" {
			return fmt.Errorf("another member has the address %s: %w", c.AdvertisePeer, store.ErrExists)
		}
		added = all[i]
		return nil
	})
	return added, all, err
}

// retry repeats f until it succeeds, fails for good or the context ends, and
// then returns f's last error.
func (c *Config) retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || errors.Is(err, store.ErrExists) {
			return err
		}
		if !errors.Is(err, errAgain) {
			c.Log.Debug("store membership has to wait", "reason", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryEvery):
		}
	}
}

// initialCluster names all members as etcd wants them. One that has not started
// has no name yet; only its address is compared.
func (c *Config) initialCluster(self store.Member, all []store.Member) string {
	var parts []string
	for _, m := range all {
		name := m.Name
		switch {
		case m.ID == self.ID:
			name = c.Name
		case name == "":
			name = fmt.Sprintf("unstarted-%x", m.ID)
		}
		for _, u := range m.PeerURLs {
			parts = append(parts, name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

// promote asks for a vote until this member has one. The others are asked, since
// a learner answers nothing itself.
func (v *Voter) promote(ctx context.Context) {
	for v.wantsVote() && ctx.Err() == nil {
		err := v.promoteOnce(ctx)
		if err == nil {
			v.cfg.Log.Info("store voter has its vote", "node", v.cfg.Name)
			return
		}
		v.cfg.Log.Debug("no vote yet", "reason", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

// wantsVote: before a newcomer has heard of its own joining, which it has when it
// is ready, etcd takes it for no learner.
func (v *Voter) wantsVote() bool {
	select {
	case <-v.etcd.Server.ReadyNotify():
		return v.etcd.Server.IsLearner()
	default:
		return v.cfg.joined || v.etcd.Server.IsLearner()
	}
}

func (v *Voter) promoteOnce(ctx context.Context) error {
	s := v.etcd.Server
	var urls []string
	for _, m := range s.Cluster().Members() {
		if !m.IsLearner && m.ID != s.MemberID() {
			urls = append(urls, m.ClientURLs...)
		}
	}
	if len(urls) == 0 {
		return errors.New("knows no voter yet")
	}
	cli, err := v.cfg.client(ctx, urls)
	if err != nil {
		return err
	}
	defer cli.Close()
	return cli.Promote(ctx, uint64(s.MemberID()))
}
