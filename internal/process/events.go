package process

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"manada/internal/agent"
	"manada/internal/api"
	"manada/internal/config"
	"manada/internal/notify"
	"manada/internal/store"
)

// notifier tells events.command; nil when there is none.
func notifier(c *config.Config, a *agent.Agent, log *slog.Logger) (*notify.Notifier, error) {
	if c.Events.Command == "" {
		return nil, nil
	}
	cmd, err := config.ParseCommand(c.Events.Command)
	if err != nil {
		return nil, fmt.Errorf("events.command %w", err)
	}
	who := func() notify.Who {
		st := a.Status()
		w := notify.Who{Primary: st.Primary, Switchover: a.BySwitchover()}
		if n, ok := st.Node(c.Node); ok {
			w.NodeID = n.ID
		}
		if p, ok := st.Node(st.Primary); ok {
			w.PrimaryID, w.PrimaryInfo = p.ID, p.Conninfo()
		}
		return w
	}
	return notify.New(notify.Config{Command: cmd, Only: c.Events.Only, Who: who, Log: log}), nil
}

// eventSource streams the herd's history out of the store.
type eventSource struct{ store store.Store }

// Subscribe implements api.EventSource.
func (e eventSource) Subscribe(ctx context.Context, after uint64) (<-chan api.Event, error) {
	first, err := e.store.Events(ctx, int64(after), 0)
	if err != nil {
		return nil, err
	}
	ch := make(chan api.Event)
	go func() {
		defer close(ch)
		seen := int64(after)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for events := first; ; {
			for _, v := range events {
				select {
				case ch <- api.Event{ID: uint64(v.N), Kind: v.Kind, Data: v}:
					seen = v.N
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if events, err = e.store.Events(ctx, seen, 0); err != nil {
				events = nil // the store is away: the next round asks again
			}
		}
	}()
	return ch, nil
}
