package cli

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/agent"
	"manada/internal/blob"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/verb"
)

// Repository is the herd's repository as this machine reaches it.
type Repository struct {
	Storage blob.Storage
	Host    *config.Config // of this machine; its section backup applies
	Where   string         // for people
}

// Repository opens the repository. Who is root becomes the user of the host
// first: what is written is to be the herd's.
func (h *Herd) Repository() (*Repository, error) {
	r, err := h.c.openRepository()
	if err != nil {
		return nil, err
	}
	account, err := r.cfg.RunAs()
	if err != nil {
		return nil, err
	}
	if err := become(account); err != nil {
		return nil, err
	}
	return &Repository{r.storage, r.cfg, r.where}, nil
}

// Read asks every host at once and takes the first answer.
func (h *Herd) Read(ctx context.Context, v verb.Verb, out any) error {
	raw, _, err := read[json.RawMessage](ctx, h.c, v, 2*time.Second)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// Write asks one host that answers; it passes on what is not its own business.
func (h *Herd) Write(ctx context.Context, v verb.Verb, in, out any) error {
	return h.c.write(ctx, v, in, out)
}

// owner is the host of this machine to whose data directory a path belongs.
func (h *Herd) owner(path string) *config.Config {
	for _, cfg := range h.c.hosts {
		if cfg.Has(config.Database) && within(path, cfg.PGData()) {
			return cfg
		}
	}
	return nil
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// ArchivePush hands a segment to the agent whose PostgreSQL it is of.
func (h *Herd) ArchivePush(ctx context.Context, path string) error {
	cfg := h.owner(path)
	if cfg == nil {
		return fail(exitUsage, "give the path of a segment in pg_wal of a host of this machine", "%s is in no data directory of the herd", path)
	}
	return callAgent(ctx, socketOf(cfg), verb.ArchivePush, agent.ArchiveCall{Path: path})
}

// ArchiveGet fetches a file of the archive; found is false when it is not there.
func (h *Herd) ArchiveGet(ctx context.Context, name, dest string) (found bool, err error) {
	if cfg := h.owner(dest); cfg != nil {
		err = callAgent(ctx, socketOf(cfg), verb.ArchiveGet, agent.ArchiveCall{Name: name, Dest: dest})
		var p *peer.Error
		if errors.As(err, &p) && p.Status == http.StatusNotFound {
			return false, nil
		}
		return err == nil, err
	}
	err = archiveGetFrom(ctx, h.c, name, dest)
	var f *failure
	if errors.As(err, &f) && f.err == nil {
		return false, nil
	}
	return err == nil, err
}

func socketOf(cfg *config.Config) string { return filepath.Join(cfg.RunDir, agent.SocketName) }

// RestoreTarget prepares a directory outside the herd for a restore and becomes
// the user who is to own it. It returns the restore_command for it.
func (h *Herd) RestoreTarget(dir string, standby bool) (command string, err error) {
	account, err := h.c.hosts[0].RunAs()
	if err != nil {
		return "", err
	}
	if err := prepareRestore(dir, account); err != nil {
		return "", err
	}
	if command, err = (&app{}).restoreCommand(h.c, account, standby); err != nil {
		return "", err
	}
	return command, become(account)
}

// DataDirs are the data directories of this machine's hosts.
func (h *Herd) DataDirs() []string { return h.c.dataDirs() }

// Standalone gives a restored directory a configuration of its own.
func (h *Herd) Standalone(dir, label string, params map[string]string) error {
	return standalone(dir, label, params)
}
