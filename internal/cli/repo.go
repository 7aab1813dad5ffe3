package cli

import (
	"net/http"
	"time"

	"manada/internal/blob"
	"manada/internal/config"
	"manada/internal/keeper"
	"manada/internal/process"
)

// repository is the herd's backup repository as this machine reaches it.
type repository struct {
	storage blob.Storage
	cfg     *config.Config // of a host of this machine, whose sections backup apply
	where   string         // for people
}

// openRepository opens the hosts of this command and their repository.
func (a *app) openRepository() (*caller, *repository, error) {
	c, err := a.open()
	if err != nil {
		return nil, nil, err
	}
	r, err := c.openRepository()
	return c, r, err
}

// openRepository takes the folder where the repository host is here, else asks
// that host over mutual TLS.
func (c *caller) openRepository() (*repository, error) {
	for _, cfg := range c.hosts {
		if cfg.Has(config.Repository) {
			s, err := blob.NewPosix(cfg.Backup.RepoPath, blob.PosixOptions{})
			return &repository{s, cfg, cfg.Backup.RepoPath}, err
		}
	}
	for _, cfg := range c.hosts {
		f, err := process.ReadFacts(cfg)
		if err != nil {
			return nil, err
		}
		if f.Repo == "" {
			continue
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.id.ClientTLS(f.RepoNode),
			MaxIdleConnsPerHost: 8, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 5 * time.Minute}}
		s, err := keeper.NewClient("https://"+f.Repo+"/repo", client)
		return &repository{s, cfg, f.RepoNode + " at " + f.Repo}, err
	}
	return nil, fail(exitFailed, "give one host the role repository", "no repository host of the herd is known here")
}
