package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
)

var (
	// ErrNotCaughtUp: a learner cannot have a vote yet. Try again.
	ErrNotCaughtUp = errors.New("the learner has not caught up yet")
	// ErrBusy: another learner is joining; etcd takes one at a time. Try again.
	ErrBusy = errors.New("another member is joining the store")
)

// Members lists the store's members by a linearizable read: it fails without a
// quorum.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var ms []Member
	err := c.onMember(ctx, "list the store's members", func(ctx context.Context, e *endpoint) (err error) {
		ms, err = e.memberList(ctx, true)
		return err
	})
	return ms, err
}

// AddLearner adds a member that has no vote and has not started yet. ErrBusy
// while there is another one: etcd would refuse it only when it applies it, and
// a voter that starts again takes what its log holds of it for a member.
func (c *Client) AddLearner(ctx context.Context, peerURLs []string) (added Member, all []Member, err error) {
	err = c.onMember(ctx, "add a learner to the store", func(ctx context.Context, e *endpoint) error {
		now, err := e.memberList(ctx, true)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(now, func(m Member) bool { return m.Learner && !slices.Equal(m.PeerURLs, peerURLs) }) {
			return rpctypes.ErrTooManyLearners
		}
		resp, err := pb.NewClusterClient(e.cli.ActiveConnection()).MemberAdd(ctx,
			&pb.MemberAddRequest{PeerURLs: peerURLs, IsLearner: true})
		if err != nil {
			return fmt.Errorf("%s: %w", e.url, err)
		}
		added, all = membersOf([]*pb.Member{resp.Member})[0], membersOf(resp.Members)
		return nil
	})
	return added, all, err
}

// Promote gives a learner its vote. ErrNotCaughtUp until it has caught up; a
// member that has a vote already is no error.
func (c *Client) Promote(ctx context.Context, id uint64) error {
	return c.onMember(ctx, fmt.Sprintf("give member %x its vote", id), func(ctx context.Context, e *endpoint) error {
		_, err := pb.NewClusterClient(e.cli.ActiveConnection()).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
		if is(err, rpctypes.ErrMemberNotLearner) {
			return nil
		}
		return err
	})
}

// RemoveVoter takes a member out of the store, by name. It refuses with
// ErrNoQuorum when the members that remain would not have a living quorum, or
// the last one would go. A name that is no member is ErrNotFound.
func (c *Client) RemoveVoter(ctx context.Context, name string) error {
	return c.remove(ctx, name, func(m Member) bool { return m.Name == name })
}

// RemoveMember is RemoveVoter by peer URL, which a member that never started
// has although it has no name.
func (c *Client) RemoveMember(ctx context.Context, peerURL string) error {
	return c.remove(ctx, peerURL, func(m Member) bool { return slices.Contains(m.PeerURLs, peerURL) })
}

func (c *Client) remove(ctx context.Context, who string, match func(Member) bool) error {
	what := "remove " + who + " from the store"
	st, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	i := slices.IndexFunc(st.Members, match)
	if i < 0 {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	m := st.Members[i]
	if err := mayRemove(st, m); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if m.Leader {
		// Else every call waits for an election. It goes without, too.
		_ = c.MoveLeader(ctx, m.Name)
	}
	return c.onMember(ctx, what, func(ctx context.Context, e *endpoint) error {
		_, err := pb.NewClusterClient(e.cli.ActiveConnection()).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID})
		if is(err, rpctypes.ErrMemberNotFound) {
			return nil // removed meanwhile
		}
		return err
	})
}

// mayRemove: the living voters without m must be a quorum of all voters (they
// have to agree to the removal, m's word does not count) and, with that, of
// those that remain.
func mayRemove(st Status, m Member) error {
	up := 0
	for _, o := range st.Members {
		if o.ID != m.ID && o.Up && !o.Learner {
			up++
		}
	}
	need := st.Voters/2 + 1
	if !m.Learner && st.Voters == 2 && up == 1 && m.Up {
		return nil // both live: the one that goes agrees, the one that stays is a quorum of one
	}
	if up < need {
		return fmt.Errorf("%d of the other voters answer, %d of %d are needed; start them first: %w",
			up, need, st.Voters, ErrNoQuorum)
	}
	return nil
}

// MoveLeader moves etcd's leadership away from that member to another voter
// that answers, so that one dead host is not two elections. Nothing happens
// when it does not lead; ErrNoQuorum when no other voter answers.
func (c *Client) MoveLeader(ctx context.Context, avoid string) error {
	what := "move the store's leadership away from " + avoid
	st, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	i := slices.IndexFunc(st.Members, func(m Member) bool { return m.Leader })
	if i < 0 || st.Members[i].Name != avoid {
		return nil
	}
	e, err := c.pool.endpointOf(st.Members[i])
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*c.pool.cfg.Timeout) // an election
	defer cancel()
	err = ErrNoQuorum
	for _, m := range st.Members {
		if m.Learner || m.Leader || !m.Up {
			continue
		}
		_, err = pb.NewMaintenanceClient(e.cli.ActiveConnection()).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: m.ID})
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// onMember runs a membership call through the member that answers best. Changes
// of membership go through etcd's log and take longer than a write of ours.
func (c *Client) onMember(ctx context.Context, what string, f func(context.Context, *endpoint) error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*c.pool.cfg.Timeout)
	defer cancel()
	ready, err := c.pool.awaitReady(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", what, err, ErrUnreachable)
	}
	sctx, sent := tellSent(ctx)
	err = f(sctx, ready[0])
	if err == nil {
		return nil
	}
	ready[0].blame() // until a probe: the next try goes elsewhere
	return fmt.Errorf("%s: %w: %w", what, err, membershipError(err, sent.Load()))
}

func membershipError(err error, sent bool) error {
	switch {
	case is(err, rpctypes.ErrMemberLearnerNotReady):
		return ErrNotCaughtUp
	case is(err, rpctypes.ErrTooManyLearners):
		return ErrBusy
	case is(err, rpctypes.ErrUnhealthy), is(err, rpctypes.ErrMemberNotEnoughStarted):
		return ErrNoQuorum
	case is(err, rpctypes.ErrMemberNotFound):
		return ErrNotFound
	case is(err, rpctypes.ErrMemberExist), is(err, rpctypes.ErrPeerURLExist):
		return ErrExists
	}
	return classify(err, sent)
}

// is compares what came over the wire with one of etcd's errors, which are
// known by their text.
func is(err, target error) bool {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Error() == target.Error()
	}
	var s interface{ GRPCStatus() *status.Status }
	return errors.As(err, &s) && s.GRPCStatus().Message() == target.Error()
}
