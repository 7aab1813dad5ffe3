package process

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"manada/internal/backup"
	"manada/internal/peer"
	"manada/internal/verb"
)

// Switched is the answer of POST /v1/archive-check: the segment that the primary
// has finished, to be looked for in the repository.
type Switched struct {
	Node string `json:"node"`
	WAL  string `json:"wal"`
}

// postStanza makes the stanza from the primary's data directory, or finds that
// it fits: POST /v1/stanza.
func (h *hostAgent) postStanza(w http.ResponseWriter, r *http.Request) {
	answer := map[string]string{"stanza": h.cfg.Backup.Stanza}
	err := h.onPrimary(r.Context(), verb.Stanza, struct{}{}, &answer, func() error {
		s, err := h.repo.open()
		if err != nil {
			return peer.Refuse(http.StatusConflict, "no_repository", "give one host of the herd the role repository", "%v", err)
		}
		c, err := backup.ReadCluster(r.Context(), h.cfg.PGData())
		if err != nil {
			return err
		}
		return backup.StanzaCreate(r.Context(), s, h.cfg.Backup.Stanza, c, h.log)
	})
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	peer.WriteJSON(w, answer)
}

// postArchiveCheck ends the primary's current WAL segment, with a record in it,
// so that there is one to be archived.
func (h *hostAgent) postArchiveCheck(w http.ResponseWriter, r *http.Request) {
	var s Switched
	err := h.onPrimary(r.Context(), verb.ArchiveCheck, struct{}{}, &s, func() (err error) {
		s.Node = h.cfg.Node
		s.WAL, err = h.switchWAL(r.Context())
		return err
	})
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	peer.WriteJSON(w, s)
}

func (h *hostAgent) switchWAL(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := connectLocal(ctx, h.agent.SocketDir(), h.cfg.Ports.PostgreSQL)
	if err != nil {
		return "", fmt.Errorf("switch WAL on %s: %w", h.cfg.Node, err)
	}
	defer c.Close(ctx)
	res, err := c.Exec(ctx, "select pg_create_restore_point('archive check'); select pg_walfile_name(pg_switch_wal())").ReadAll()
	if err != nil || len(res) != 2 || len(res[1].Rows) != 1 {
		return "", fmt.Errorf("switch WAL on %s: %w", h.cfg.Node, err)
	}
	return string(res[1].Rows[0][0]), nil
}
