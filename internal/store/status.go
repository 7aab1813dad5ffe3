package store

import (
	"context"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// status implements kv: every member is asked by itself, at the same time.
func (p *pool) status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	members, err := p.members(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("ask the store for its members: %w", err)
	}
	// A member that drops packets costs half the deadline, not all of it.
	ask, stop := context.WithTimeout(ctx, p.cfg.Timeout/2)
	defer stop()
	answers := make([]*pb.StatusResponse, len(members))
	var wg sync.WaitGroup
	for i := range members {
		wg.Go(func() { answers[i] = p.askMember(ask, &members[i]) })
	}
	wg.Wait()
	return summarize(members, answers), nil
}

// members asks all endpoints for the list and takes the first answer. It is
// what that member believes, not a linearizable read: the status of a store
// without a quorum is wanted too.
func (p *pool) members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	eps := p.order()
	type reply struct {
		members []Member
		err     error
	}
	replies := make(chan reply, len(eps))
	for _, e := range eps {
		p.wg.Go(func() {
			ms, err := e.memberList(ctx, false)
			replies <- reply{ms, err}
		})
	}
	var lastErr error
	for range eps {
		select {
		case r := <-replies:
			if r.err == nil {
				return r.members, nil
			}
			lastErr = r.err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: last: %v: %w", ctx.Err(), lastErr, ErrUnknown)
		}
	}
	return nil, fmt.Errorf("%v: %w", lastErr, ErrUnknown)
}

func (e *endpoint) memberList(ctx context.Context, linearizable bool) ([]Member, error) {
	resp, err := pb.NewClusterClient(e.cli.ActiveConnection()).MemberList(ctx, &pb.MemberListRequest{Linearizable: linearizable})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.url, err)
	}
	return membersOf(resp.Members), nil
}

func membersOf(ms []*pb.Member) []Member {
	out := make([]Member, 0, len(ms))
	for _, m := range ms {
		out = append(out, Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner})
	}
	return out
}

// askMember fills in Up or Err; its answer is nil unless up.
func (p *pool) askMember(ctx context.Context, m *Member) *pb.StatusResponse {
	e, err := p.endpointOf(*m)
	if err != nil {
		m.Err = err.Error()
		return nil
	}
	resp, err := pb.NewMaintenanceClient(e.cli.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	switch {
	case err != nil:
		m.Err = err.Error()
	case resp.Header.MemberId != m.ID:
		// Somebody else answers at its address: an old or a replaced member.
		m.Err = fmt.Sprintf("member %x answers at its address", resp.Header.MemberId)
	default:
		m.Up = true
		return resp
	}
	return nil
}

// endpointOf finds or makes the connection to a member.
func (p *pool) endpointOf(m Member) (*endpoint, error) {
	if len(m.ClientURLs) == 0 {
		return nil, fmt.Errorf("has not started yet")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("the client is closed")
	}
	for _, u := range m.ClientURLs {
		for _, e := range p.eps {
			if e.url == u {
				return e, nil
			}
		}
	}
	u := m.ClientURLs[0]
	if e, ok := p.others[u]; ok {
		return e, nil
	}
	e, err := p.dial(u)
	if err != nil {
		return nil, err
	}
	p.others[u] = e
	return e, nil
}

func summarize(members []Member, answers []*pb.StatusResponse) Status {
	s := Status{Members: members}
	var leader, term uint64
	for i, m := range members {
		a := answers[i]
		if !m.Learner {
			s.Voters++
		}
		if a == nil {
			continue
		}
		if !m.Learner {
			s.Up++
		}
		if a.Leader != 0 && a.RaftTerm >= term {
			leader, term = a.Leader, a.RaftTerm
		}
		s.DBBytes, s.QuotaBytes = max(s.DBBytes, a.DbSize), max(s.QuotaBytes, a.DbSizeQuota)
		for _, e := range a.Errors {
			s.Alarms = append(s.Alarms, m.Name+": "+e)
		}
	}
	for i := range members {
		if members[i].ID == leader {
			members[i].Leader = true
			s.Leader = members[i].Name
		}
	}
	s.Quorum = s.Voters > 0 && s.Up > s.Voters/2
	return s
}
