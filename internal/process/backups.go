package process

import (
	"context"
	"errors"
	"net/http"

	"manada/internal/peer"
)

func (h *hostAgent) serveBackup(w http.ResponseWriter, r *http.Request) {
	peer.WriteError(w, errors.New("not yet"))
}

func (h *hostAgent) watchBackups(ctx context.Context) { <-ctx.Done() }
