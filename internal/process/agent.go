package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"manada/internal/agent"
	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/decide"
	"manada/internal/guardian"
	"manada/internal/notify"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/postgres"
	"manada/internal/proxy"
	"manada/internal/rotate"
	"manada/internal/store"
)

// Agent runs the agent of this host until ctx ends. PostgreSQL goes on running
// unless stop says otherwise when ctx ends.
func Agent(ctx context.Context, c *config.Config, version string, log *slog.Logger, stop func() bool) error {
	id, facts, err := loadHost(c)
	if err != nil {
		return err
	}
	high, err := store.OpenHighWater(filepath.Join(c.StateDir(), "store-highwater.json"))
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, store.Config{
		Cluster: c.Cluster, Endpoints: endpoints(c, facts), TLS: id.ClientTLSAny(),
		Reread: 250 * time.Millisecond, Log: log,
	})
	if err != nil {
		return err
	}
	defer st.Close()
	hub := peer.NewHub(peer.Config{Cluster: c.Cluster, Node: c.Node, Kind: c.Kind(), TLS: id.ClientTLS, Log: log})
	defer hub.Close()

	parts := agent.Parts{
		Store: st, High: high, Hub: hub, Log: log,
		CertNotAfter: id.NotAfter, MoveStoreLeader: st.MoveLeader, RemoveVoter: st.RemoveVoter,
		ConfigRefused: func() string {
			why, _ := os.ReadFile(c.RefusedFile())
			return strings.TrimSpace(string(why))
		},
	}
	repo := &repository{cfg: c, id: id, log: log, addr: facts.Repo, node: facts.RepoNode, had: facts.HadRepo || facts.Repo != ""}
	if c.Has(config.Database) {
		if err := addDatabase(ctx, c, id, version, log, &parts); err != nil {
			return err
		}
		defer parts.Database.Close()
		parts.Repo = repo
	}
	var told *notify.Notifier
	if c.Events.Command != "" {
		parts.Notify = func(e store.Event) { told.Tell(e) }
	}
	h := &hostAgent{cfg: c, id: id, store: st, hub: hub, db: parts.Database, guard: parts.Guardian, repo: repo, log: log, facts: facts}
	parts.Removed = h.removed
	parts.Conditions = func() []cluster.Condition { return append(h.secretConditions(), fileConditions(c, proxy.Files())...) }
	a := agent.New(agentConfig(c, facts, version), parts)
	h.agent = a
	h.secrets = h.keeper()
	if told, err = notifier(c, a, log); err != nil {
		return err
	}
	h.told = told
	return h.run(ctx, stop)
}

// endpoints puts this host's voter first.
func endpoints(c *config.Config, f Facts) []string {
	var urls []string
	if c.Has(config.Store) {
		urls = append(urls, c.Addresses().Store)
	}
	for _, u := range f.Endpoints {
		if len(urls) == 0 || u != urls[0] {
			urls = append(urls, u)
		}
	}
	return urls
}

func agentConfig(c *config.Config, f Facts, version string) agent.Config {
	t := c.Timing
	repo := ""
	if c.Has(config.Repository) {
		repo = c.Backup.RepoPath
	}
	return agent.Config{
		Cluster: c.Cluster, Node: c.Node, Location: c.Location, Version: version, Kind: c.Kind(), Founder: f.Founder,
		ID: c.NodeID, Failover: c.Failover, Priority: c.Priority,
		Manual: c.Failover == config.FailoverManual || c.Priority == 0,
		Run:    os.Getenv(RunVariable), Beat: t.Beat, RenewEvery: max(t.SuspectAfter/4, 100*time.Millisecond), StopTimeout: 20 * time.Second,
		Addrs: c.Addresses(), StateDir: c.StateDir(), IdentityDir: c.IdentityDir(), RepoPath: repo, Peers: f.Peers,
		MembersFrom: c.PostgreSQL.MembersFrom,
		Spec: decide.Spec{
			Durability: c.Durability, WantK: c.WantK,
			SuspectAfter: t.SuspectAfter, DegradeAfter: t.DegradeAfter, OpenAfter: t.OpenAfter,
			HandoverAfter: 5 * t.SuspectAfter, WithdrawAfter: 3 * t.SuspectAfter,
			Drain:        decide.Drain{Soft: c.Switchover.Soft, Hold: c.Switchover.Hold, For: c.Switchover.For},
			RecloneAfter: time.Minute, FreshRead: 2 * t.Beat,
		},
	}
}

// addDatabase connects the guardian and the instance.
func addDatabase(ctx context.Context, c *config.Config, id *pki.Identity, version string, log *slog.Logger, p *agent.Parts) error {
	gcfg := guardian.Config{DataDir: c.PGData(), RunDir: c.RunDir, LockDir: c.StateDir(), Version: version}
	if err := os.MkdirAll(c.StateDir(), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	g, err := guardian.Ensure(ctx, gcfg, log)
	if err != nil {
		return err
	}
	pcfg, err := postgresConfig(c, id, log)
	if err != nil {
		return err
	}
	shared, err := cachedParameters(c)
	if err != nil {
		log.Error("starting without the cluster's parameters", "error", err.Error())
	}
	pcfg.Params = mergeParameters(shared, c.PostgreSQL.Parameters)
	db, err := postgres.New(pcfg, g)
	if err != nil {
		return err
	}
	p.Guardian, p.Database = g, db
	p.EnsureGuardian = func(ctx context.Context) error { _, err := guardian.Ensure(ctx, gcfg, log); return err }
	return nil
}

func postgresConfig(c *config.Config, id *pki.Identity, log *slog.Logger) (postgres.Config, error) {
	held, err := pki.ReadHeld(id.Dir())
	if err != nil {
		return postgres.Config{}, err
	}
	exe, err := os.Executable()
	if err != nil {
		return postgres.Config{}, fmt.Errorf("find our own program: %w", err)
	}
	files := id.PostgresFiles()
	return postgres.Config{
		BinDir: c.PostgreSQL.BinDir, DataDir: c.PGData(), StateDir: c.StateDir(), RunDir: c.RunDir,
		LogFile: filepath.Join(c.LogDir(), "postgresql.log"), Port: c.Ports.PostgreSQL, Listen: []string{c.Listen},
		Cluster: c.Cluster, Node: c.Node, Params: c.PostgreSQL.Parameters, HBA: c.PostgreSQL.HBA,
		Replication: c.PostgreSQL.Replication,
		TLS:         postgres.TLSFiles{Cert: files.Cert, Key: files.Key, CA: files.CA}, ClientTLS: id.ClientTLS,
		Passwords: passwordsOf(held.Passwords), OtherPasswords: passwordsOf(held.Next),
		ArchiveCommand: fmt.Sprintf("%s archive-push --socket %s %%p", exe, filepath.Join(c.RunDir, agent.SocketName)),
		RestoreCommand: fmt.Sprintf("%s archive-get --socket %s %%f %%p", exe, filepath.Join(c.RunDir, agent.SocketName)),
		MaxSlotWALKeep: c.PostgreSQL.MaxSlotWALKeep.String(),
		Logger:         log,
	}, nil
}

// hostAgent is a running agent with its listeners.
type hostAgent struct {
	cfg     *config.Config
	id      *pki.Identity
	store   *store.Client
	hub     *peer.Hub
	agent   *agent.Agent
	repo    *repository
	db      *postgres.Instance // nil on a witness
	guard   *guardian.Client   // nil on a witness
	told    *notify.Notifier   // nil: no command is told of events
	log     *slog.Logger
	jobs    jobs
	certs   certificates
	secrets *rotate.Keeper
	exposed atomic.Bool     // joinSecretExposed, as last looked
	life    context.Context // of the process, for work that outlives a request

	mu     sync.Mutex // guards what follows
	facts  Facts
	shared map[string]string // parameters of the cluster, as they are applied here
}

func (h *hostAgent) known() Facts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.facts
}

func (h *hostAgent) run(ctx context.Context, stop func() bool) error {
	l, err := net.Listen("tcp", h.cfg.ListenOn(h.cfg.Ports.Peer))
	if err != nil {
		return fmt.Errorf("listen for the other hosts on %s: %w", h.cfg.ListenOn(h.cfg.Ports.Peer), err)
	}
	authority := h.authority()
	srv := peer.NewServer(peer.ServerConfig{Self: h.id.Name(), Hub: h.hub, TLS: h.id.ServerTLSOptionalClient(), Join: authority, Refresh: h.secrets, Admit: h.admit(ctx),
		Watch: func(l net.Listener) net.Listener { return h.id.Listener(l, h.log) }, Log: h.log})
	h.agent.Mount(srv)
	h.mount(srv, authority)

	asked := ctx
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	h.life = ctx
	g.Go(func() error { defer end(); return h.awaitEnd(asked, ctx, stop) })
	g.Go(func() error { return srv.Serve(ctx, l) })
	g.Go(func() error { return h.serveHTTP(ctx) })
	g.Go(func() error { return h.agent.Run(ctx) })
	g.Go(func() error { h.keepFacts(ctx); return nil })
	g.Go(func() error { h.keepAuthority(ctx); return nil })
	g.Go(func() error { h.keepCertificate(ctx); return nil })
	g.Go(func() error { h.keepRegistry(ctx); return nil })
	g.Go(func() error { h.secrets.Run(ctx); return nil })
	g.Go(func() error { h.watchJoinSecret(ctx); return nil })
	g.Go(func() error { h.watchBackups(ctx); return nil })
	g.Go(func() error { h.keepParameters(ctx); return nil })
	if h.told != nil {
		g.Go(func() error { h.told.Run(ctx); return nil })
	}
	g.Go(func() error { h.keepLogs(ctx); return nil })
	g.Go(func() error { return h.keepSchedule(ctx) })
	g.Go(func() error { return srv.ServeLocal(ctx, filepath.Join(h.cfg.RunDir, agent.SocketName)) })
	err = g.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// awaitEnd stops PostgreSQL, when that is wanted, before the agent falls silent.
func (h *hostAgent) awaitEnd(asked, ctx context.Context, stop func() bool) error {
	select {
	case <-ctx.Done():
		return nil
	case <-asked.Done():
	}
	if stop == nil || !stop() {
		return nil
	}
	return h.agent.StopPostgres(ctx)
}

// keepFacts remembers the voters and the other agents over restarts.
func (h *hostAgent) keepFacts(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.refreshFacts(ctx)
		}
	}
}

func (h *hostAgent) refreshFacts(ctx context.Context) {
	nodes, err := h.store.Nodes(ctx)
	if err != nil {
		return
	}
	members, err := h.store.Members(ctx)
	if err != nil {
		return
	}
	old := h.known()
	f := Facts{Schema: 1, Founder: old.Founder, Peers: map[string]string{}, HadRepo: old.HadRepo || old.Repo != ""}
	for _, m := range members {
		f.Endpoints = append(f.Endpoints, m.ClientURLs...)
	}
	for _, n := range nodes {
		if n.Addrs.Peer != "" && n.Kind != "proxy" && n.Name != h.cfg.Node {
			f.Peers[n.Name] = n.Addrs.Peer
		}
		if n.Addrs.Repo != "" {
			f.Repo, f.RepoNode, f.HadRepo = n.Addrs.Repo, n.Name, true
		}
	}
	h.repo.set(f)
	if same(f, old) {
		return
	}
	if err := WriteFacts(h.cfg, f); err != nil {
		h.log.Error("cannot keep what is known of the herd", "error", err.Error())
		return
	}
	h.mu.Lock()
	h.facts = f
	h.mu.Unlock()
	if err := h.store.SetEndpoints(endpoints(h.cfg, f)); err != nil {
		h.log.Warn("cannot use the store's endpoints", "error", err.Error())
	}
}
