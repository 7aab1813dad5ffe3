package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// access is who may replicate, as pg_hba.conf has it. Guarded by confMu.
type access struct {
	members  []cluster.MemberAccess
	proxies  []string // addresses of the herd's proxies
	rendered bool     // by this process: what it found may be of another version
}

// SetAccess renders from where members and proxies come, and reloads when that
// has changed.
func (i *Instance) SetAccess(ctx context.Context, members []cluster.MemberAccess, proxies []string) error {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	if i.access.rendered && slices.EqualFunc(members, i.access.members, cluster.MemberAccess.Equal) && slices.Equal(proxies, i.access.proxies) {
		return nil
	}
	old := i.access
	i.access = access{members, proxies, true}
	if err := i.protectSocket(); err != nil {
		i.access = old
		return err
	}
	if err := durable.Write(i.run(hbaFile), []byte(i.renderHBA()), durable.Options{}); err != nil {
		i.access = old // rendered again at the next look
		return err
	}
	if err := i.reloadIfRunning(ctx); err != nil {
		i.access = old
		return fmt.Errorf("reload pg_hba.conf: %w", err)
	}
	return nil
}

// protectSocket keeps the other users of this host off a socket that a PostgreSQL has
// made which a former version started.
func (i *Instance) protectSocket() error {
	err := os.Chmod(filepath.Join(i.socketDir, socketName(i.cfg.Port)), 0o700)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// AdmitsOverSocket says whether PostgreSQL, with the pg_hba.conf that it has in force,
// asks whoever comes over the unix socket for the role's password. One that a former
// version started lets nobody in but its own user, until it has read the file again.
func (i *Instance) AdmitsOverSocket(ctx context.Context) bool {
	if i.admits.Load() {
		return true
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(i.socketDir, socketName(i.cfg.Port)))
	if err != nil {
		return false
	}
	defer conn.Close()
	if d, ok := ctx.Deadline(); ok {
		conn.SetDeadline(d)
	}
	f := pgproto3.NewFrontend(conn, conn)
	f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters: map[string]string{"user": cluster.RoleProxy, "database": cluster.Database}})
	if f.Flush() != nil {
		return false
	}
	m, err := f.Receive()
	if err != nil {
		return false
	}
	_, asks := m.(*pgproto3.AuthenticationSASL)
	i.admits.Store(asks)
	return asks
}

// renderHBA: who comes over the socket of this host and has no password there; our
// roles, over TLS or from this machine, never trusted; the
// roles that are trusted with replication; everybody else over the socket, with SCRAM:
// only our own user, and so this host's proxy, can open it; then the user's lines; then
// everybody with SCRAM over TLS, but nobody for replication. A commit is acknowledged
// within a millisecond of a walsender that bears a standby's name, so whoever
// may not bear one gets no walsender at all.
func (i *Instance) renderHBA() string {
	lines := []string{
		"# Rendered by manada; changes are overwritten. Set postgres.hba instead.",
		"local all " + strings.Join(cluster.PeerRoles, ",") + " peer map=manada",
		"local all " + strings.Join(cluster.NetworkRoles, ",") + " reject",
	}
	lines = append(lines, i.hbaMembers()...)
	for _, r := range []string{cluster.RoleMonitor, cluster.RoleProxy} {
		lines = append(lines, i.hbaPair("all", r)...)
	}
	for _, r := range []string{cluster.RoleReplication, cluster.RoleRewind, cluster.RoleMonitor, cluster.RoleProxy, cluster.RoleBackup} {
		lines = append(lines, "host all "+r+" all reject", "host replication "+r+" all reject")
	}
	for _, r := range i.cfg.Replication {
		lines = append(lines, r.HBA(i.access.proxies...)...)
	}
	lines = append(lines, "local all all scram-sha-256")
	lines = append(lines, i.cfg.HBA...)
	lines = append(lines, i.hbaPair("all", "all")...)
	return strings.Join(lines, "\n") + "\n"
}

// hbaMembers: our roles for streaming, cloning and rewinding come from members
// only, and show a certificate of the herd. Streaming has no line for databases:
// replication=database matches those.
func (i *Instance) hbaMembers() []string {
	if i.cfg.TLS.Cert == "" { // tests: one machine, nothing encrypted
		return append(i.hbaPair("replication", cluster.RoleReplication), i.hbaPair(cluster.Database, cluster.RoleRewind)...)
	}
	var lines []string
	for _, m := range i.access.members {
		method := " scram-sha-256 clientcert=verify-ca"
		if m.NoCert {
			method = " scram-sha-256"
		}
		for _, a := range m.Addrs {
			at := cluster.HBAAddress(a)
			lines = append(lines, "hostssl replication "+cluster.RoleReplication+" "+at+method,
				"hostssl "+cluster.Database+" "+cluster.RoleRewind+" "+at+method)
		}
	}
	return lines
}

// hbaPair lets a role in over TLS from anywhere, without it from this machine only.
func (i *Instance) hbaPair(db, role string) []string {
	var lines []string
	if i.cfg.TLS.Cert != "" {
		lines = append(lines, "hostssl "+db+" "+role+" all scram-sha-256")
	}
	return append(lines,
		"host "+db+" "+role+" 127.0.0.1/32 scram-sha-256",
		"host "+db+" "+role+" ::1/128 scram-sha-256",
	)
}
