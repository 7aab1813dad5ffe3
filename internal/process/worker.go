package process

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/backup"
	"manada/internal/config"
	"manada/internal/repo"
)

// BackupWorker makes one backup of this host's PostgreSQL and tells how it goes
// on out, a line of JSON at a time. The agent of the primary starts it.
func BackupWorker(ctx context.Context, c *config.Config, kind, socketDir string, out io.Writer, log *slog.Logger) error {
	if !c.Has(config.Database) {
		return errRole
	}
	enc := json.NewEncoder(out)
	res, err := runBackup(ctx, c, kind, socketDir, enc, log)
	if err != nil {
		m := workerMessage{Error: err.Error()}
		if e, ok := errors.AsType[*backup.Error](err); ok {
			m.Hint = e.Hint
		}
		return enc.Encode(m)
	}
	return enc.Encode(workerMessage{
		Done: true, Type: string(res.Type), Label: res.Label, Prior: res.Prior,
		Size: res.Size, Copied: res.Copied, RepoSize: res.RepoSize, Notices: res.Notices,
	})
}

func runBackup(ctx context.Context, c *config.Config, kind, socketDir string, enc *json.Encoder, log *slog.Logger) (*backup.Result, error) {
	s, err := OpenRepository(c)
	if err != nil {
		return nil, err
	}
	stanza, err := backup.ReadCluster(ctx, c.PGData())
	if err != nil {
		return nil, err
	}
	if err := backup.StanzaCreate(ctx, s, c.Backup.Stanza, stanza, log); err != nil {
		return nil, err
	}
	var last time.Time
	return backup.Backup(ctx, backup.Options{
		Storage: s, Stanza: c.Backup.Stanza, PGData: c.PGData(), Type: repo.BackupType(kind),
		Connect: func(ctx context.Context) (*pgconn.PgConn, error) {
			return pgconn.Connect(ctx, conninfoOf(socketDir, c.Ports.PostgreSQL))
		},
		Workers: c.Backup.Processes, Compress: repo.Compression(c.Backup.Compress),
		Annotations: map[string]string{"node": c.Node},
		Retention:   &backup.Retention{Full: c.Backup.RetentionFull, Diff: c.Backup.RetentionDiff},
		Log:         log,
		Progress: func(p backup.Progress) {
			if time.Since(last) < 200*time.Millisecond {
				return
			}
			last = time.Now()
			_ = enc.Encode(workerMessage{Phase: string(p.Phase), BytesDone: p.BytesDone, BytesTotal: p.BytesTotal})
		},
	})
}
