package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// TakeReplication takes the attribute REPLICATION from every role that may not
// have it, and ends the walsenders of every role that does not have it (any
// more): one that was started before goes on otherwise. It names the roles. The
// attribute is what closes replication=database too, which pg_hba.conf cannot
// tell from an ordinary session. Superusers have the right without it. Nothing of
// this waits for a standby.
func (i *Instance) TakeReplication(ctx context.Context) ([]string, error) {
	trusted := []string{literal(cluster.RoleReplication)}
	for _, r := range i.cfg.Replication {
		trusted = append(trusted, literal(r.Role))
	}
	r, err := i.query(ctx, "select rolname from pg_roles where rolreplication and not rolsuper and rolname not in ("+strings.Join(trusted, ", ")+")")
	if err != nil {
		return nil, fmt.Errorf("look for roles with replication: %w", err)
	}
	taken, errs := i.takeFrom(ctx, r[0])
	if _, err := i.query(ctx, `select pg_terminate_backend(a.pid) from pg_stat_activity a left join pg_roles r on r.oid = a.usesysid
  where a.backend_type = 'walsender' and a.usesysid is not null and (r.rolreplication or r.rolsuper) is not true`); err != nil {
		errs = errors.Join(errs, fmt.Errorf("end walsenders of roles without replication: %w", err))
	}
	return taken, errs
}

// takeFrom takes the attribute from roles, on a session of its own: somebody's
// open transaction may hold one of them, and neither observations nor the other
// roles wait for that.
func (i *Instance) takeFrom(ctx context.Context, roles rows) (taken []string, errs error) {
	if len(roles) == 0 {
		return nil, nil
	}
	c, err := i.connect(ctx, "manada:roles", "local")
	if err != nil {
		return nil, fmt.Errorf("take replication from %d roles: %w", len(roles), err)
	}
	defer c.Conn().Close()
	for _, row := range roles {
		role := string(row[0])
		if _, err := run(ctx, c, "set lock_timeout = '300ms'; alter role "+identifier(role)+" noreplication"); err != nil {
			errs = errors.Join(errs, fmt.Errorf("take replication from role %s: %w", role, err))
			continue
		}
		taken = append(taken, role)
	}
	return taken, errs
}
