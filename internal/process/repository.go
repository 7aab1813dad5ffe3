package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"manada/internal/agent"
	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/health"
	"manada/internal/keeper"
	"manada/internal/pki"
	"manada/internal/repo"
)

// repository is the herd's backup repository as this host reaches it: a folder
// when it is here, else backupd on the repository host over mutual TLS.
type repository struct {
	cfg *config.Config
	id  *pki.Identity
	log *slog.Logger

	mu         sync.Mutex
	addr, node string
	had        bool // some host has had the role repository
	asked      bool // the herd's members were read: without an address there is none
	storage    blob.Storage
	own        *keeper.Client // of the service of this host
}

var errNoRepository = errors.New("no repository host is known yet: one host of the herd needs the role repository")

// Nowhere implements agent.Repository.
func (r *repository) Nowhere() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch enabled := r.cfg.Backup.Enabled; {
	case enabled == "off":
		return "backup.enabled is off"
	case enabled == "auto" && r.asked && !r.had && !r.cfg.Has(config.Repository):
		return "no host has the role repository"
	}
	return ""
}

// set says where backupd listens, as the herd's members have it.
func (r *repository) set(f Facts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addr, node := f.Repo, f.RepoNode
	r.asked, r.had = true, f.HadRepo
	if addr != r.addr || node != r.node {
		r.addr, r.node, r.storage = addr, node, nil
	}
}

// Host is the repository host's node name, empty when none is known.
func (r *repository) Host() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.node
}

// open returns the storage.
func (r *repository) open() (blob.Storage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.storage != nil {
		return r.storage, nil
	}
	s, err := openStorage(r.cfg, r.id, r.addr, r.node)
	if err == nil {
		r.storage = s
	}
	return s, err
}

func openStorage(c *config.Config, id *pki.Identity, addr, node string) (blob.Storage, error) {
	if c.Has(config.Repository) {
		s, err := blob.NewPosix(c.Backup.RepoPath, blob.PosixOptions{})
		if err != nil {
			return nil, err
		}
		return keeper.Local{Storage: keeper.Bound(s, Reserve(c)), Keeper: NewKeeper(c, s, nil)}, nil
	}
	if addr == "" {
		return nil, errNoRepository
	}
	return askBackupd(id, addr, node)
}

// askBackupd is backupd of a host as the others have it.
func askBackupd(id *pki.Identity, addr, node string) (*keeper.Client, error) {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: id.ClientTLS(node), MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 5 * time.Minute,
	}}
	return keeper.NewClient("https://"+addr+"/repo", client)
}

// OwnBackupd is the backup service of the repository host, as itself asks it.
func OwnBackupd(c *config.Config, id *pki.Identity) (*keeper.Client, error) {
	return askBackupd(id, c.Addresses().Repo, c.Node)
}

// Reserve is what stays free on the volume of the repository on this host.
func Reserve(c *config.Config) keeper.Reserve {
	return keeper.Reserve{Path: c.Backup.RepoPath, Bytes: int64(c.Backup.RepoReserve)}
}

// NewKeeper is the keeper of the repository on this host.
func NewKeeper(c *config.Config, s blob.Storage, log *slog.Logger) *keeper.Keeper {
	b := c.Backup
	return keeper.New(keeper.Config{
		Node: c.Node, Storage: s, Stanza: b.Stanza, Memory: filepath.Join(c.StateDir(), "repository.json"), MinAge: b.RetentionMinAge,
		Retention: backup.Retention{Full: b.RetentionFull, Diff: b.RetentionDiff, Archive: b.RetentionArchive}, Log: log,
	})
}

// lost says what the repository had and has not any more.
func lost(m keeper.State) string {
	if len(m.Lost) == 0 {
		return ""
	}
	text := m.Lost[0]
	if n := len(m.Lost) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// gapsIn tells of the gap that the newest backup has before it, and of one that
// only older ones have.
func gapsIn(gaps []keeper.KnownGap) (now, old health.Gap) {
	for _, g := range slices.Backward(gaps) {
		h := health.Gap{WAL: "WAL segment " + g.First, Cost: "backup " + g.Backup + " cannot be restored"}
		switch {
		case g.Segments == 0:
			h.WAL = g.First
		case g.Segments > 1:
			h.WAL = fmt.Sprintf("%d WAL segments, %s to %s", g.Segments, g.First, g.Last)
		}
		if !g.Inside {
			h.Cost = fmt.Sprintf("restores from backup %s, and from older ones, end at %s", g.Backup, g.Until)
			if !g.Stored.IsZero() {
				h.Cost += ", archived " + g.Stored.UTC().Format("2006-01-02 15:04:05Z")
			}
		}
		if g.Covered && old.WAL == "" {
			old = h
		} else if !g.Covered && now.WAL == "" {
			now = h
		}
	}
	return now, old
}

// OpenRepository is the repository as seen from this host, by what it knows of
// the herd.
func OpenRepository(c *config.Config) (blob.Storage, error) {
	id, err := pki.Load(c.IdentityDir())
	if err != nil {
		return nil, err
	}
	f, err := ReadFacts(c)
	if err != nil {
		return nil, err
	}
	return openStorage(c, id, f.Repo, f.RepoNode)
}

func (r *repository) archive() (backup.ArchiveOptions, error) {
	s, err := r.open()
	return backup.ArchiveOptions{Storage: s, Stanza: r.cfg.Backup.Stanza, Compress: repo.Compression(r.cfg.Backup.Compress),
		CompressLevel: r.cfg.Backup.CompressLevel, Log: r.log}, err
}

// Push implements agent.Repository. A stanza that does not exist is made: the
// caller leads the current epoch.
func (r *repository) Push(ctx context.Context, path string) error {
	o, err := r.archive()
	if err != nil {
		return err
	}
	err = backup.ArchivePush(ctx, o, path)
	if backup.Code(err) == backup.CodeFileMissing {
		if err := r.createStanza(ctx, o.Storage); err != nil {
			return err
		}
		err = backup.ArchivePush(ctx, o, path)
	}
	if backup.Code(err) == backup.CodeArchiveDuplicate {
		err = fmt.Errorf("%w: %w", agent.ErrOther, err)
	}
	return err
}

func (r *repository) createStanza(ctx context.Context, s blob.Storage) error {
	c, err := backup.ReadCluster(ctx, r.cfg.PGData())
	if err != nil {
		return err
	}
	r.log.Info("creating the stanza", "stanza", r.cfg.Backup.Stanza)
	return backup.StanzaCreate(ctx, s, r.cfg.Backup.Stanza, c, r.log)
}

// Get implements agent.Repository.
func (r *repository) Get(ctx context.Context, name, dest string) error {
	if r.Nowhere() != "" {
		return os.ErrNotExist // nothing was ever archived, or nobody asks for it
	}
	o, err := r.archive()
	if err != nil {
		return err
	}
	err = backup.ArchiveGet(ctx, o, name, dest)
	if errors.Is(err, backup.ErrNotFound) {
		return os.ErrNotExist
	}
	return err
}

// damaged says which backup has damaged pages, and which is the newest without;
// "" when the last one has none, or that is accepted.
func (r *repository) damaged(st *backup.StanzaInfo, last *backup.BackupInfo) string {
	if !r.cfg.Backup.ChecksumPageError || last.Error == nil || !*last.Error {
		return ""
	}
	for _, b := range slices.Backward(st.Backup) {
		if b.Error == nil || !*b.Error {
			return last.Label + " has damaged pages; the newest backup without is " + b.Label + ", which is kept"
		}
	}
	return last.Label + " has damaged pages, and there is no backup without"
}

// tells is what backupd says of the repository. On its own host that it answers
// is told by nothing else: the folder is here, the others need the service.
func (r *repository) tells(ctx context.Context, s blob.Storage) (keeper.State, error) {
	if c, ok := s.(*keeper.Client); ok {
		st, err := c.State(ctx)
		if err != nil {
			r.log.Debug("the repository host does not say what it remembers", "error", err.Error()) // of an older release
		}
		return st, nil
	}
	c, err := r.served()
	if err != nil {
		return keeper.State{}, err
	}
	return c.State(ctx)
}

// served is the backup service of this very host.
func (r *repository) served() (*keeper.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own == nil {
		c, err := OwnBackupd(r.cfg, r.id)
		if err != nil {
			return nil, err
		}
		r.own = c
	}
	return r.own, nil
}

// status is what can be restored, nil when no repository is known.
func (r *repository) status(ctx context.Context) *health.Backup {
	if why := r.Nowhere(); why != "" {
		return &health.Backup{Off: r.cfg.Backup.Enabled == "off", None: r.cfg.Backup.Enabled != "off"}
	}
	s, err := r.open()
	if errors.Is(err, errNoRepository) {
		return nil
	}
	b := &health.Backup{Host: r.Host()}
	if r.cfg.Has(config.Repository) {
		b.Host = r.cfg.Node
	}
	var info backup.Info
	if err == nil {
		info, err = backup.GetInfo(ctx, backup.InfoOptions{Storage: s, Stanza: r.cfg.Backup.Stanza})
	}
	if err == nil {
		err = info.Unread()
	}
	var told keeper.State
	if err == nil {
		told, err = r.tells(ctx, s)
	}
	if err != nil {
		b.Unreachable = err.Error()
		return b
	}
	for i := range info {
		st := &info[i]
		if last := st.Last(); last != nil {
			stop := time.Unix(last.Timestamp.Stop, 0).UTC()
			b.Last = &cluster.BackupLabel{Label: last.Label, Type: string(last.Type), Stop: stop}
			from := st.RestorableFrom().UTC()
			b.RestorableFrom = &from
			b.Damaged = r.damaged(st, last)
		}
	}
	b.Lost, b.Full = lost(told), told.Full
	b.Gap, b.OldGap = gapsIn(told.Gaps)
	r.addSchedule(ctx, s, info, b)
	return b
}
