package process

import (
	"fmt"
	"log/slog"

	"manada/internal/agent"
	"manada/internal/config"
	"manada/internal/notify"
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
