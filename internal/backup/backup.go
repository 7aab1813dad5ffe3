package backup

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/blob"
	"manada/internal/repo"
)

// Options say what to back up, and where.
type Options struct {
	Storage blob.Storage
	Stanza  string
	PGData  string // the running primary's data directory, on this host
	Type    repo.BackupType

	// Connect opens the connection under which the backup runs; it is closed at
	// the end. The role needs to be a superuser, or a member of pg_monitor and
	// pg_read_all_settings with execute on pg_backup_start and pg_backup_stop.
	Connect func(context.Context) (*pgconn.PgConn, error)

	Workers        int              // files copied at once; 0 means 2
	Compress       repo.Compression // "" means zst
	CompressLevel  int              // 0 means the compression's default
	Delta          bool             // compare content even where size and time are equal
	SlowStart      bool             // wait for the next scheduled checkpoint instead of forcing one
	NoArchiveCheck bool             // do not wait for the WAL: the backup may turn out useless
	ArchiveTimeout time.Duration    // how long to wait for each new WAL segment; 0 means a minute
	Exclude        []string         // further names relative to PGDATA; with a / at the end, only the contents
	Annotations    map[string]string
	Retention      *Retention // expire afterwards; nil keeps everything

	Progress func(Progress) // called often, never twice at once
	Now      func() time.Time
	Log      *slog.Logger
}

// Result is what a backup made.
type Result struct {
	Label    string
	Type     repo.BackupType // full also when an incr was asked and there was no prior
	Prior    string
	Start    time.Time
	Stop     time.Time
	LSNStart string
	LSNStop  string
	WALStart string
	WALStop  string
	Size     int64 // of the database, bytes
	Copied   int64 // bytes of it that this backup stores
	RepoSize int64 // bytes that they take in the repository
	Files    int
	Notices  []string // what a user should know although the backup is good
	PageErrs int      // files with page checksum errors
	Expired  *Expired // what Retention removed; nil when it was not asked or failed
}

func (o *Options) defaults() error {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	if o.Compress == "" {
		o.Compress = repo.Zstd
	}
	if o.CompressLevel == 0 {
		o.CompressLevel = o.Compress.DefaultLevel()
	}
	if o.ArchiveTimeout <= 0 {
		o.ArchiveTimeout = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	switch o.Type {
	case repo.Full, repo.Diff, repo.Incr:
	default:
		return fail(CodeOption, "Use full, diff or incr.", "backup type %q", o.Type)
	}
	if o.Connect == nil || o.Storage == nil {
		return fail(CodeOption, "", "a backup needs a storage and a connection")
	}
	if !o.Compress.Writable() {
		return fail(CodeFeature, "Use zst, lz4, gz or none.", "compress-type %s is not written by this version", o.Compress)
	}
	return repo.CheckStanza(o.Stanza)
}

// run is one backup on its way.
type run struct {
	Options
	ctl     Control
	pg      *session
	info    *repo.BackupInfo
	archive repo.DB
	m       *repo.Manifest
	prior   *repo.Manifest
	notes   *notices
	track   *tracker
	keeper  Keeper
}

// Backup makes one backup. Until it returns nil, and for a moment before, nothing
// that a reader counts as a backup is in the repository; what an interrupted one
// leaves, the next removes.
func Backup(ctx context.Context, o Options) (*Result, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	r := &run{Options: o, notes: newNotices(o.Log), track: &tracker{report: o.Progress}, keeper: keeperOf(o.Storage, o.Log)}
	lock, held, err := lockStanza(ctx, o.Storage, o.Stanza)
	if err != nil {
		return nil, fmt.Errorf("back up stanza %s: %w", o.Stanza, err)
	}
	defer lock.unlock()
	res, err := r.backup(held)
	if err != nil {
		return nil, fmt.Errorf("back up stanza %s: %w", o.Stanza, because(held, err))
	}
	if o.Retention != nil {
		if res.Expired, err = r.keeper.ExpireBackups(held, o.Stanza, *o.Retention, true); err != nil {
			r.notes.add("the backup is good, but expiring old ones failed: " + because(held, err).Error())
		} else {
			r.notes.addAll(res.Expired.Notices)
		}
	}
	res.Notices = r.notes.list
	r.track.phase(PhaseDone)
	return res, nil
}

func (r *run) backup(ctx context.Context) (*Result, error) {
	r.track.phase(PhasePrepare)
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	conn, err := r.Connect(ctx)
	if err != nil {
		return nil, &Error{Code: CodeDBConnect, Text: "connect to the database", Err: err}
	}
	defer func() {
		// Also ends the backup in PostgreSQL if it is still open.
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		conn.Close(c)
	}()
	r.pg = &session{c: conn}
	if err := r.pg.check(ctx, r.PGData, r.ctl, !r.NoArchiveCheck); err != nil {
		return nil, err
	}
	if why := r.pg.archiver(ctx); why != "" && !r.NoArchiveCheck {
		// Better heard now than after hours of copying.
		r.notes.add("the backup waits for the archive at its end" + why)
	}
	items, err := r.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.copyAndFinish(ctx, items); err != nil {
		r.discard(ctx)
		return nil, err
	}
	return r.result(), nil
}

// load reads the stanza and brings it in order.
func (r *run) load(ctx context.Context) error {
	var err error
	if r.ctl, err = ReadControl(ctx, r.PGData); err != nil {
		return fmt.Errorf("read the data directory %s: %w", r.PGData, err)
	}
	version, err := ReadVersion(r.PGData)
	if err != nil {
		return err
	}
	// Before backup.info is read: it may change it.
	notes, err := r.keeper.Begin(ctx, r.Stanza)
	r.notes.addAll(notes)
	if err != nil {
		return err
	}
	info, a, err := loadStanza(ctx, r.Storage, r.Stanza)
	if err != nil {
		return err
	}
	r.info = info
	c := Cluster{Version: version, SystemID: r.ctl.SystemID}
	if err := checkCluster(r.Stanza, c, r.info.DB); err != nil {
		return err
	}
	if err := checkCluster(r.Stanza, c, a.DB); err != nil {
		return err
	}
	r.archive, err = a.DB()
	return err
}

// prepare starts the backup in PostgreSQL, lists the files and decides which of
// them to copy.
func (r *run) prepare(ctx context.Context) ([]*item, error) {
	if r.Type != repo.Full {
		var err error
		if r.prior, err = findPrior(ctx, r.Storage, r.Stanza, r.info, r.Type, r.notes.add); err != nil {
			return nil, err
		}
		if r.prior == nil {
			r.Type = repo.Full
		}
	}
	db, err := r.info.DB()
	if err != nil {
		return nil, err
	}
	r.m = r.newManifest(db)
	if r.prior != nil {
		adoptPrior(r.m, r.prior, r.notes.add)
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	if err := r.list(ctx); err != nil {
		return nil, err
	}
	delta := r.Delta
	if why := needsDelta(r.m, r.prior); why != "" && !delta {
		if r.prior != nil {
			r.notes.add("the content of all files is compared: " + why)
		}
		delta = true
	}
	r.m.Option.Delta = &delta
	if err := r.label(ctx); err != nil {
		return nil, err
	}
	return plan(r.m, r.prior, delta), nil
}

func (r *run) newManifest(db repo.DB) *repo.Manifest {
	pages, standby, buffer, network := r.ctl.PageChecksums, false, int64(chunkSize), 0
	level, workers := r.CompressLevel, r.Workers
	db.Catalog, db.Control = r.ctl.CatalogVersion, r.ctl.ControlVersion
	return &repo.Manifest{
		BackrestVersion: repo.Version, Bundle: true, Type: r.Type, DB: db, Annotations: r.Annotations,
		Option: repo.ManifestOption{ArchiveCheck: !r.NoArchiveCheck, BackupStandby: &standby, BufferSize: &buffer,
			ChecksumPage: &pages, Compress: r.Compress, CompressLevel: &level, CompressLevelNetwork: &network,
			Online: true, ProcessMax: &workers},
	}
}

func (r *run) start(ctx context.Context) error {
	r.m.Start = r.Now().Unix()
	var err error
	r.m.LSNStart, r.m.ArchiveStart, err = r.pg.start(ctx, "manada backup "+r.Stanza, !r.SlowStart)
	if err != nil {
		return err
	}
	r.notes.log.Info("backup started", "stanza", r.Stanza, "type", r.Type, "lsn", r.m.LSNStart, "wal", r.m.ArchiveStart)
	return nil
}

// list reads the data directory, and then waits for the next second: a file that
// changes while it is copied must not end up with the time that is in the manifest.
func (r *run) list(ctx context.Context) error {
	spaces, err := r.pg.tablespaces(ctx)
	if err != nil {
		return err
	}
	if r.m.Databases, err = r.pg.databases(ctx); err != nil {
		return err
	}
	version := fmt.Sprintf("PG_%s_%d", r.m.DB.Version, r.ctl.CatalogVersion)
	if err := walkCluster(r.m, r.PGData, version, spaces, *r.m.Option.ChecksumPage, r.Exclude, r.notes.add); err != nil {
		return err
	}
	if r.m.Find(controlName) == nil {
		return fail(CodeFileMissing, "", "%s/global/pg_control is missing", r.PGData)
	}
	now := r.Now()
	r.m.CopyStart = now.Unix() + 1
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Unix(now.Unix()+1, 0).Sub(now)):
	}
	return nil
}

func (r *run) label(ctx context.Context) error {
	labels, err := allLabels(ctx, r.Storage, r.Stanza)
	if err != nil {
		return err
	}
	r.m.Label, err = repo.NewLabel(r.m.Type, r.m.Prior, time.Unix(r.m.Start, 0).In(r.Now().Location()), labels)
	if err != nil {
		return &Error{Code: CodeClock, Text: err.Error(), Hint: "Check the clock of this host."}
	}
	r.m.References = append(r.m.References, r.m.Label)
	return nil
}

func (r *run) copyAndFinish(ctx context.Context, items []*item) error {
	r.track.update(func(p *Progress) {
		p.Phase, p.FilesTotal = PhaseCopy, len(items)
		for _, it := range items {
			p.BytesTotal += it.file.SizeOriginal
		}
	})
	c := &copier{storage: r.Storage, stanza: r.Stanza, label: r.m.Label, pgdata: r.PGData, comp: r.m.Option.Compress,
		level: *r.m.Option.CompressLevel, raw: r.m.BundleRaw, track: r.track, notes: r.notes}
	if err := c.run(ctx, planJobs(items), r.Workers); err != nil {
		return err
	}
	dropGone(r.m, items)
	st, err := r.pg.stop(ctx)
	if err != nil {
		return err
	}
	r.m.LSNStop, r.m.ArchiveStop, r.m.Stop = st.lsn, st.segment, r.Now().Unix()
	if err := r.storeText(ctx, "backup_label", st.label); err != nil {
		return err
	}
	if st.spaces != "" {
		if err := r.storeText(ctx, "tablespace_map", st.spaces); err != nil {
			return err
		}
	}
	if !r.NoArchiveCheck {
		r.track.phase(PhaseArchive)
		if err := r.waitArchived(ctx); err != nil {
			return err
		}
	}
	r.track.phase(PhaseFinish)
	return r.publish(ctx)
}

// storeText stores a file that PostgreSQL gave as text at the end of the backup.
func (r *run) storeText(ctx context.Context, name, text string) error {
	z, err := repo.NewCompressor(r.m.Option.Compress, *r.m.Option.CompressLevel, r.m.BundleRaw)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	z.Reset(&buf)
	if _, err := z.Write([]byte(text)); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	full := repo.TargetData + "/" + name
	stored := buf.Bytes()
	if err := r.Storage.Put(ctx, repo.FilePath(r.Stanza, r.m.Label, full, r.m.Option.Compress), bytes.NewReader(stored), blob.PutOptions{}); err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	sum := sha1.Sum([]byte(text))
	f := repo.File{Name: full, Size: int64(len(text)), SizeOriginal: int64(len(text)), SizeRepo: int64(len(stored)),
		SHA1: hex.EncodeToString(sum[:]), Timestamp: r.m.Stop, Group: r.m.FileDefault.Group, User: r.m.FileDefault.User, Mode: r.m.FileDefault.Mode}
	if r.m.Option.Compress != repo.None {
		sum = sha1.Sum(stored)
		f.RepoSHA1 = hex.EncodeToString(sum[:])
	}
	r.m.Files = append(r.m.Files, f)
	return nil
}

// publish makes the backup valid, and known.
func (r *run) publish(ctx context.Context) error {
	if err := repo.SaveManifest(ctx, r.Storage, r.Stanza, r.m); err != nil {
		return err
	}
	notes, err := r.keeper.Finish(ctx, r.Stanza, r.m.Label)
	r.notes.addAll(notes)
	return err
}

// discard removes what a failed backup has stored, if it gets to it: the next
// backup would. A backup that is already valid stays, whatever came after.
func (r *run) discard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if r.m == nil || r.m.Label == "" {
		return
	}
	if err := r.keeper.Discard(ctx, r.Stanza, r.m.Label); err != nil {
		r.notes.log.Warn("failed backup not removed", "label", r.m.Label, "error", err)
	}
}

func (r *run) result() *Result {
	e := r.m.Entry()
	res := &Result{Label: e.Label, Type: e.Type, Prior: e.Prior, Start: time.Unix(e.TimeStart, 0), Stop: time.Unix(e.TimeStop, 0),
		LSNStart: e.LSNStart, LSNStop: e.LSNStop, WALStart: e.ArchiveStart, WALStop: e.ArchiveStop,
		Size: e.Size, Copied: e.SizeDelta, RepoSize: e.RepoSizeDelta, Files: len(r.m.Files)}
	for i := range r.m.Files {
		if r.m.Files[i].ChecksumPageError {
			res.PageErrs++
		}
	}
	r.notes.log.Info("backup done", "stanza", r.Stanza, "label", res.Label, "type", res.Type, "size", res.Size, "copied", res.Copied)
	return res
}

func isNotExist(err error) bool { return errors.Is(err, blob.ErrNotExist) }
