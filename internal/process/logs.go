package process

import (
	"context"
	"path/filepath"
	"time"

	"manada/internal/logcut"
)

// keepLogs bounds the logs whose writers go on when the supervisor's children
// end: PostgreSQL's, its guardian's, and what `manada up` has its hosts print.
func (h *hostAgent) keepLogs(ctx context.Context) {
	every(ctx, 10*time.Second, func() {
		for _, path := range []string{
			filepath.Join(h.cfg.LogDir(), "postgresql.log"), filepath.Join(h.cfg.RunDir, "guardian.log"), filepath.Join(h.cfg.LogDir(), "run.log"),
		} {
			if _, err := logcut.Cut(path, int64(h.cfg.Log.MaxSize), h.cfg.Log.Keep); err != nil {
				h.log.Warn("a log was not cut as it should be", "log", path, "error", err.Error())
			}
		}
	})
}
