package process

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/backup"
	"manada/internal/config"
	"manada/internal/repo"
)

// BackupWorker makes one backup of this host's PostgreSQL and tells how it goes
// on out, a line of JSON at a time. The agent of the primary starts it.
func BackupWorker(ctx context.Context, c *config.Config, q BackupRequest, socketDir string, out io.Writer, log *slog.Logger) error {
	if !c.Has(config.Database) {
		return errRole
	}
	enc := json.NewEncoder(out)
	res, err := runBackup(ctx, c, q, socketDir, enc, log)
	if err != nil {
		m := workerMessage{Error: err.Error()}
		if e, ok := errors.AsType[*backup.Error](err); ok {
			m.Hint, m.Code = e.Hint, e.Code
			m.Error = strings.Replace(m.Error, "\nHINT: "+e.Hint, "", 1)
		}
		return enc.Encode(m)
	}
	m := workerMessage{
		Done: true, Type: string(res.Type), Label: res.Label, Prior: res.Prior,
		Size: res.Size, Copied: res.Copied, RepoSize: res.RepoSize, Notices: res.Notices, Files: res.Files,
		LSNStart: res.LSNStart, LSNStop: res.LSNStop, WALStart: res.WALStart, WALStop: res.WALStop,
	}
	m.Damaged, m.DamageAccepted = res.PageErrs, !*q.options(c).ChecksumPageError
	if res.Expired != nil {
		m.Expired = res.Expired.Backups
	}
	return enc.Encode(m)
}

func runBackup(ctx context.Context, c *config.Config, q BackupRequest, socketDir string, enc *json.Encoder, log *slog.Logger) (*backup.Result, error) {
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
	o := q.options(c)
	annotations := map[string]string{"node": c.Node}
	maps.Copy(annotations, o.Annotations)
	return backup.Backup(ctx, backup.Options{
		Storage: s, Stanza: c.Backup.Stanza, PGData: c.PGData(), Type: repo.BackupType(q.Type),
		Connect: func(ctx context.Context) (*pgconn.PgConn, error) {
			return connectLocal(ctx, socketDir, c.Ports.PostgreSQL)
		},
		Workers: o.Processes, Compress: repo.Compression(o.Compress), CompressLevel: o.CompressLevel,
		Delta: o.Delta, SlowStart: !*o.StartFast, ArchiveTimeout: time.Duration(o.ArchiveTimeoutMS) * time.Millisecond,
		Annotations: annotations,
		Retention:   &backup.Retention{Full: o.RetentionFull, Diff: o.RetentionDiff, Archive: o.RetentionArchive},
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

// BackupRequest asks the primary for a backup: POST /v1/backup.
type BackupRequest struct {
	Type    string         `json:"type"` // full, diff or incr
	Options *BackupOptions `json:"options,omitempty"`
}

// BackupOptions are for one backup; what is zero is as the primary's
// configuration says.
type BackupOptions struct {
	Annotations      map[string]string `json:"annotations,omitempty"`
	Processes        int               `json:"processes,omitempty"`
	Compress         string            `json:"compress,omitempty"`
	CompressLevel    int               `json:"compress_level,omitempty"`
	Delta            bool              `json:"delta,omitempty"`
	StartFast        *bool             `json:"start_fast,omitempty"`
	RetentionFull    int               `json:"retention_full,omitempty"`
	RetentionDiff    int               `json:"retention_diff,omitempty"`
	RetentionArchive int               `json:"retention_archive,omitempty"`
	ArchiveTimeoutMS int64             `json:"archive_timeout_ms,omitempty"`

	ChecksumPageError *bool `json:"checksum_page_error,omitempty"`
}

// options fills in what the configuration says.
func (q BackupRequest) options(c *config.Config) BackupOptions {
	var o BackupOptions
	if q.Options != nil {
		o = *q.Options
	}
	b := c.Backup
	if o.Compress == "" {
		o.Compress = b.Compress
		o.CompressLevel = cmp.Or(o.CompressLevel, b.CompressLevel)
	}
	if o.StartFast == nil {
		o.StartFast = &b.StartFast
	}
	if o.ChecksumPageError == nil {
		o.ChecksumPageError = &b.ChecksumPageError
	}
	o.Processes = cmp.Or(o.Processes, b.Processes)
	o.RetentionFull = cmp.Or(o.RetentionFull, b.RetentionFull)
	o.RetentionDiff = cmp.Or(o.RetentionDiff, b.RetentionDiff)
	o.RetentionArchive = cmp.Or(o.RetentionArchive, b.RetentionArchive)
	return o
}
