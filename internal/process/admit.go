package process

import (
	"context"
	"fmt"
	"slices"
	"time"

	"manada/internal/pki"
)

// admit refuses callers that were removed from the herd: their certificates are
// still good. A newcomer is never among them: joining under a removed name
// readmits it, and before anybody is refused the store is asked whether that
// has just happened.
func (h *hostAgent) admit(ctx context.Context) func(pki.Name) error {
	return func(who pki.Name) error {
		if !h.wasRemoved(who.Node) {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		now, err := h.store.RemovedNodes(ctx)
		if err == nil {
			h.mu.Lock()
			h.removed = now
			h.mu.Unlock()
		}
		if !h.wasRemoved(who.Node) {
			return nil
		}
		return fmt.Errorf("%s was removed from the herd; to bring it back remove its data_dir and join anew: manada node token, manada join", who.Node)
	}
}

func (h *hostAgent) wasRemoved(node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.removed, node)
}
