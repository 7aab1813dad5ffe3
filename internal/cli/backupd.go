package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"manada/internal/api"
	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/config"
	"manada/internal/durable"
	"manada/internal/keeper"
	"manada/internal/pki"
	"manada/internal/process"
)

// runBackupd serves the repository to the data hosts of the herd, under /repo
// on the backup port, and looks after it (package keeper). Only data and witness hosts get in: a proxy's certificate
// is not enough to read or replace backups. Health and metrics are for anybody.
func runBackupd(ctx context.Context, c *config.Config, log *slog.Logger) error {
	id, err := pki.Load(c.IdentityDir())
	if err != nil {
		return err
	}
	storage, err := blob.NewPosix(c.Backup.RepoPath, blob.PosixOptions{})
	if err != nil {
		return err
	}
	ready := func() error {
		_, err := storage.List(ctx, "", false)
		return err
	}
	if err := durable.Sweep(c.Backup.RepoPath); err != nil {
		log.Warn("what crashes left unfinished in the repository stays", "repo_path", c.Backup.RepoPath, "error", err.Error())
	}
	keep, guard := process.NewKeeper(c, storage, log), keeper.NewGuard(keeper.Bound(storage, process.Reserve(c)), c.Backup.Stanza, process.Writer(c, id, log))
	mux := http.NewServeMux()
	mux.Handle("/repo/", membersOnly(id, http.StripPrefix("/repo", keeper.Handler(keep, guard))))
	caller := func(r *http.Request) error { _, err := id.Caller(r.TLS); return err }
	mux.Handle("/", api.Restrict(api.Access(c.HTTP.Access), caller, api.New(api.Options{Log: log, Ready: ready, Reads: map[string]api.Read{
		// pgbackrest's `info --output=json` of all stanzas.
		"status": func(ctx context.Context, _ url.Values) (any, error) {
			return backup.GetInfo(ctx, backup.InfoOptions{Storage: storage})
		},
	}}).Handler()))
	addr := c.ListenOn(c.Ports.Backup)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("serve the repository on %s: %w", addr, err)
	}
	l = id.Listener(l, log)
	srv := &http.Server{
		Handler: mux, TLSConfig: id.ServerTLSOptionalClient(),
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, // bodies take as long as they need: blob.Handler watches them
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	looks, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() { defer close(kept); keep.Run(looks, guard) }()
	defer func() { stop(); <-kept }()
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeTLS(l, "", "") }()
	log.Info("repository is served", "addr", addr, "repo_path", c.Backup.RepoPath)
	select {
	case err := <-ended:
		return fmt.Errorf("serve the repository on %s: %w", addr, err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if srv.Shutdown(late) != nil {
		srv.Close() // a backup in progress: its writer sees the connection end
	}
	<-ended
	return nil
}

// membersOnly admits requests that came with the registered certificate of a
// data or witness host of this herd.
func membersOnly(id *pki.Identity, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := id.Caller(r.TLS)
		switch {
		case errors.Is(err, pki.ErrNoCertificate):
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case err != nil:
			http.Error(w, err.Error(), http.StatusForbidden)
		case !who.Member():
			http.Error(w, "only data and witness hosts of this herd use its repository", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r.WithContext(keeper.WithCaller(r.Context(), who.Node)))
		}
	})
}
