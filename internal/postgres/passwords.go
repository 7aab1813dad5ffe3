package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
	"manada/internal/proxy/scram"
)

// SetPasswords takes the passwords that PostgreSQL has from now on, and writes
// the password file of the upstream that is followed anew. While they are being
// changed PostgreSQL may have the others instead: either is as it has to be.
// Connections that are open go on; a walreceiver reads the file whenever it
// connects.
func (i *Instance) SetPasswords(p, others Passwords) error {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	i.cfg.Passwords, i.cfg.OtherPasswords = p, others
	files, err := filepath.Glob(i.run("replication.e*.pgpass"))
	if err != nil {
		return fmt.Errorf("write password files anew: %w", err)
	}
	for _, f := range files {
		old, err := os.ReadFile(f)
		if err != nil {
			continue // removed meanwhile
		}
		node, _, _ := strings.Cut(string(old), ":")
		line := passfileLine(node, cluster.RoleReplication, p.Replication)
		if string(old) == line {
			continue
		}
		if err := durable.Write(f, []byte(line), durable.Options{}); err != nil {
			return fmt.Errorf("write password files anew: %w", err)
		}
	}
	return nil
}

// HasPassword says whether the role's password is one of these. A role that
// does not exist, or has none, has another one.
func (i *Instance) HasPassword(ctx context.Context, role string, candidates ...string) (bool, error) {
	stored, err := i.value(ctx, "select rolpassword from pg_authid where rolname = "+literal(role))
	if err != nil {
		return false, fmt.Errorf("look up the password of %s: %w", role, err)
	}
	return slices.ContainsFunc(candidates, func(p string) bool { return verifies(stored, p) }), nil
}

func verifies(stored, password string) bool {
	v, err := scram.ParseVerifier(stored)
	return err == nil && scram.Matches(v, password)
}

// ChangePasswords gives roles new passwords, all or none, and leaves those that
// have theirs already. PostgreSQL is told of verifiers only: no password is in
// a statement, nor in its log. Roles that do not exist are left out.
func (i *Instance) ChangePasswords(ctx context.Context, passwords map[string]string) (changed []string, err error) {
	r, err := i.query(ctx, "select rolname, coalesce(rolpassword, '') from pg_authid")
	if err != nil {
		return nil, fmt.Errorf("change passwords: %w", err)
	}
	stored := map[string]string{}
	for _, row := range r[0] {
		stored[string(row[0])] = string(row[1])
	}
	var sql []string
	for _, role := range slices.Sorted(maps.Keys(passwords)) {
		old, exists := stored[role]
		if !exists || verifies(old, passwords[role]) {
			continue
		}
		v, err := newVerifier(passwords[role])
		if err != nil {
			return nil, fmt.Errorf("change the password of %s: %w", role, err)
		}
		changed = append(changed, role)
		sql = append(sql, "alter role "+identifier(role)+" password "+literal(v))
	}
	if len(changed) == 0 {
		return nil, nil
	}
	c, err := i.connect(ctx, passwordSession, "local")
	if err != nil {
		return nil, fmt.Errorf("change passwords: %w", err)
	}
	defer c.Conn().Close()
	if _, err := run(ctx, c, strings.Join(sql, "; ")); err != nil {
		return nil, fmt.Errorf("change the passwords of %s: %w", strings.Join(changed, ", "), err)
	}
	i.log.Info("passwords changed", "roles", changed)
	return changed, nil
}

// EndSessions ends the sessions of these roles that came over TCP and began
// before. Those under which members replicate, clone and rewind go on where they
// come from a member's address, and while none is known.
func (i *Instance) EndSessions(ctx context.Context, roles []string, before time.Time) error {
	i.confMu.Lock()
	var members []string
	for _, m := range i.access.members {
		for _, a := range m.Addrs {
			members = append(members, literal(cluster.HBAAddress(a)))
		}
	}
	i.confMu.Unlock()
	var names []string
	for _, r := range roles {
		names = append(names, literal(r))
	}
	spared := fmt.Sprintf("usename in (%s, %s)", literal(cluster.RoleReplication), literal(cluster.RoleRewind))
	if len(members) > 0 {
		spared += fmt.Sprintf(" and client_addr <<= any (array[%s]::inet[])", strings.Join(members, ", "))
	}
	r, err := i.query(ctx, fmt.Sprintf(`select usename, host(client_addr), pg_terminate_backend(pid) from pg_stat_activity
  where client_addr is not null and usename in (%s) and backend_start < to_timestamp(%f)
    and not (%s)`, strings.Join(names, ", "), float64(before.UnixMicro())/1e6, spared))
	if err != nil {
		return fmt.Errorf("end sessions of %s: %w", strings.Join(roles, ", "), err)
	}
	for _, row := range r[0] {
		i.log.Info("ended a session that was opened with a former password", "role", string(row[0]), "from", string(row[1]))
	}
	return nil
}

func newVerifier(password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails (crypto/rand)
	k, err := scram.FromPassword(password, salt, scram.DefaultIterations)
	return k.Verifier.String(), err
}

// identifier quotes a name for SQL.
func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
