package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pgconnect"
)

// prober tries new connections now and then: with a stopped postmaster old
// sessions go on committing while nobody new gets in (trap T14).
type prober struct {
	mu      sync.Mutex
	running bool
	last    time.Time // end of the last try
	begun   time.Time
	err     error
	refused string // why the last try failed, also one of an ordinary role
	failed  int    // tries in a row that did
}

// checkNewConnection starts a try when one is due and tells how the last one of
// the superuser ended. refused is why an ordinary role, or even the superuser,
// has been refused twice or more in a row, in PostgreSQL's words.
func (i *Instance) checkNewConnection(ctx context.Context) (err error, refused string) {
	p := &i.probe
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running && time.Since(p.last) >= i.cfg.ProbeEvery {
		p.running, p.begun = true, time.Now()
		go i.tryConnections(context.WithoutCancel(ctx))
	}
	if p.failed >= 2 {
		refused = p.refused
	}
	return p.err, refused
}

func (i *Instance) tryConnections(ctx context.Context) {
	err := i.tryConnection(ctx, cluster.RoleSuperuser)
	why := inWords(err)
	if err == nil {
		if other := i.tryConnection(ctx, cluster.RoleMonitor); other != nil {
			why = inWords(other)
		}
	}
	p := &i.probe
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.last, p.err, p.refused = false, time.Now(), err, why
	if p.failed++; why == "" {
		p.failed = 0
	}
}

func (i *Instance) tryConnection(ctx context.Context, role string) error {
	ctx, cancel := context.WithTimeout(ctx, i.cfg.QueryTimeout)
	defer cancel()
	c, err := pgconnect.Open(ctx, pgconnect.Session{Conninfo: pgconnect.Local(i.socketDir, i.cfg.Port, role), Name: "manada:probe"})
	if err != nil {
		return err
	}
	defer c.Conn().Close()
	_, err = run(ctx, c, "select 1")
	return err
}

// inWords is an error as PostgreSQL said it, without what the driver adds.
func inWords(err error) string {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &pg):
		return fmt.Sprintf("%s: %s (SQLSTATE %s)", pg.Severity, pg.Message, pg.Code)
	case timedOut(err):
		return "no answer in time"
	}
	return err.Error()
}

// reset forgets the last try: it was about another postmaster.
func (p *prober) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.last, p.refused, p.failed = nil, time.Time{}, "", 0
}
