package cli

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/agent"
	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/store"
	"manada/internal/verb"
)

// roleRequest is what POST /v1/switchover and /v1/failover take.
type roleRequest = agent.RequestVerb

func (a *app) switchoverCmd() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "switchover [NODE]",
		Short: "Let another node be the primary, without losing anything",
		Long: `Let another node be the primary: the present one stops cleanly, NODE (default: a
synchronous standby) takes over, and the old primary follows it. No acknowledged
commit is lost. Old transactions are waited for first while all goes on
(switchover.for); then proxies hold what is new, and writes wait about a second.
Until the stop it can be given up, and says so: a standby that is lost meanwhile
leaves the primary what it is.` + exits(exitFailed, exitUsage, exitNoPrimary, exitUnknown),
		Example: "  manada switchover\n  manada switchover slave",
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			q := roleRequest{}
			if len(args) == 1 {
				q.To = args[0]
			}
			return a.changeRole(c.Context(), verb.Switchover, q, timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for it")
	return c
}

func (a *app) failoverCmd() *cobra.Command {
	var timeout time.Duration
	var q roleRequest
	c := &cobra.Command{
		Use:   "failover [NODE]",
		Short: "Make a standby the primary although the primary is gone",
		Long: `Make a standby the primary when the primary is gone and nobody took over by
himself. The herd does that alone whenever no commit can be lost, so this is for
the rest: a primary that was alone (degraded) when it died. Then it is refused
unless --accept-data-loss says that commits may be lost and --old-primary-is-off
that the old primary cannot come back by surprise.

While the primary is well it is refused, too: switchover hands over in order.
With --force the primary loses its epoch all the same: its sessions end, and it
is rewound.` + exits(exitFailed, exitUsage, exitNoPrimary, exitRefused, exitUnknown),
		Example: "  manada failover\n  manada failover slave --accept-data-loss --old-primary-is-off",
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.To = args[0]
			}
			return a.changeRole(c.Context(), verb.Failover, q, timeout)
		},
	}
	f := c.Flags()
	f.BoolVar(&q.AcceptDataLoss, "accept-data-loss", false, "commits that only the old primary has may be lost")
	f.BoolVar(&q.OldPrimaryOff, "old-primary-is-off", false, "the old primary is off and cannot come back by itself")
	f.BoolVar(&q.Force, "force", false, "also while the primary is well")
	f.DurationVar(&timeout, "timeout", time.Minute, "how long to wait for it")
	return c
}

func (a *app) failbackCmd() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "failback [NODE]",
		Short: "Give the lead back to the node that had it before",
		Long: `Give the lead back to the node that was the primary before the last change
(default), or to NODE: wait until it is a synchronous standby again, which it
becomes by itself, then switch over to it.` + exits(exitFailed, exitUsage, exitNoPrimary, exitUnknown),
		Example: "  manada failback\n  manada failback master",
		Args:    upTo(1),
		RunE: func(c *cobra.Command, args []string) error {
			to := ""
			if len(args) == 1 {
				to = args[0]
			}
			return a.failback(c.Context(), to, timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait for it")
	return c
}

// changeRole files a request and waits for its result.
func (a *app) changeRole(ctx context.Context, v verb.Verb, q roleRequest, timeout time.Duration) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if u, err := user.Current(); err == nil {
		q.By = u.Username
	}
	var ticket struct {
		ID string `json:"id"`
		To string `json:"to"`
	}
	began := time.Now()
	if err := c.write(wait, v, q, &ticket); err != nil {
		return err
	}
	a.say("%s to %s asked for (request %s)", v.Name, ticket.To, ticket.ID)
	r, err := c.result(wait, ticket.ID)
	if err != nil {
		if ctx.Err() != nil {
			return fail(exitInterrupted, "manada status  says what became of it", "interrupted; the request %s goes on without us", ticket.ID)
		}
		return fail(exitUnknown, "manada status  says what became of it", "%s to %s: no outcome within %s", v.Name, ticket.To, timeout)
	}
	if r.Code != 0 {
		return fail(r.Code, "manada status", "%s to %s: %s", v.Name, ticket.To, r.Text)
	}
	if v.Name == verb.Reinit.Name {
		a.print("%s (%.1f s)", r.Text, time.Since(began).Seconds())
		return nil
	}
	a.print("%s is the primary (%.1f s)", ticket.To, time.Since(began).Seconds())
	return nil
}

// result waits until the request is finished. Any host can tell; the one that did
// is asked again, over the same connection, for as long as it answers: a command
// that waits is not to cost the herd more than its switchover.
func (c *caller) result(ctx context.Context, id string) (store.Result, error) {
	client := c.client()
	client.Keep = true
	defer client.Close()
	var at target
	for {
		q, err := store.Request{}, error(nil)
		if at == (target{}) {
			q, at, err = read[store.Request](ctx, c, verb.Request.At(id), resultWithin)
		} else {
			one, cancel := context.WithTimeout(ctx, resultWithin)
			err = client.Call(one, at.addr, at.node, verb.Request.At(id), nil, &q)
			cancel()
		}
		switch {
		case err != nil:
			at = target{}
		case q.Result != nil:
			return *q.Result, nil
		}
		select {
		case <-ctx.Done():
			return store.Result{}, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// resultWithin is how long one answer is waited for.
const resultWithin = time.Second

func (a *app) failback(ctx context.Context, to string, timeout time.Duration) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	began := time.Now()
	left := func() time.Duration { return max(timeout-time.Since(began), time.Second) }
	if to == "" {
		if to, err = c.formerLeader(ctx, timeout); err != nil {
			return err
		}
	}
	for {
		if err := a.awaitSync(ctx, c, to, left()); err != nil {
			return err
		}
		err := a.changeRole(ctx, verb.Switchover, roleRequest{To: to}, left())
		if !notYet(err) || time.Since(began) > timeout {
			return err
		}
	}
}

// notYet: a host that was just started was asked and does not know yet what the
// others know.
func notYet(err error) bool {
	p, ok := errors.AsType[*peer.Error](err)
	return ok && slices.Contains([]string{"not_synchronous", "no_primary", "unknown_node", peer.CodeUnavailable}, p.Code)
}

// formerLeader is who led before the present primary. A host that was just
// started answers before it knows the record.
func (c *caller) formerLeader(ctx context.Context, timeout time.Duration) (string, error) {
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var t *cluster.Term
	for t == nil {
		rows, _, err := read[[]peer.Row](wait, c, verb.View, time.Second)
		if err == nil {
			t, _ = peer.NewestTerm(rows)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-wait.Done():
			switch {
			case ctx.Err() != nil:
				return "", ctx.Err()
			case err != nil:
				return "", err
			}
			return "", fail(exitFailed, "manada status", "the herd's record was not known within %s", timeout)
		}
	}
	for i := len(t.History) - 1; i >= 0; i-- {
		if l := t.History[i].Leader; l != t.Leader {
			return l, nil
		}
	}
	return "", fail(exitFailed, "manada switchover NODE", "only %s has led this herd so far", t.Leader)
}

// silence is how long no host may answer before that is told: a moment of it is
// part of every change of roles.
const silence = 3 * time.Second

// awaitSync waits until the node is a synchronous standby that streams.
func (a *app) awaitSync(ctx context.Context, c *caller, node string, timeout time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	said, answered := "", time.Now()
	for {
		s, err := c.status(wait)
		state := said
		if time.Since(answered) > silence {
			state = "no host of the herd answers"
		}
		if err == nil {
			answered = time.Now()
			n, known := s.Node(node)
			switch {
			case !known && s.Primary == "": // it was just started and has heard nobody yet
			case !known:
				return fail(exitUsage, "manada status  lists the nodes", "there is no node %s in this herd", node)
			case s.Primary == node:
				return fail(exitFailed, "", "%s is already the primary", node)
			case n.Sync == cluster.SyncMember && n.State == cluster.StateStreaming:
				return nil
			}
			state = describeNode(n)
		}
		if state != said {
			said = state
			a.say("waiting until %s is a synchronous standby; now: %s", node, state)
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fail(exitFailed, "manada status", "%s did not become a synchronous standby within %s: %s; nothing was changed", node, timeout, state)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func describeNode(n cluster.NodeStatus) string {
	s := string(n.State)
	if n.Op != "" {
		s += ": " + n.Op
	}
	if n.LagBytes != nil && *n.LagBytes > 0 {
		s += fmt.Sprintf(", %d bytes behind", *n.LagBytes)
	}
	return s
}
