package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"manada/internal/cluster"
)

// Clients are the sessions of others than the herd, as pg_stat_activity shows
// them at a moment: no walsenders, none of the herd's own roles, none of this
// program. Transactions that were prepared (PREPARE TRANSACTION) are nobody's
// session; they survive a switchover and are not among them.
type Clients struct {
	Open     int           // have a transaction open, or run a statement
	InCommit int           // those of them whose COMMIT was sent, as far as can be seen
	Oldest   time.Duration // age of the oldest of those transactions
}

// ownSessions are left out: roles of the herd, and the superuser's sessions that
// this program has opened, by the name that they give.
var ownSessions = fmt.Sprintf(`usename in ('%s') or usename = '%s' and application_name like 'manada:%%'`,
	strings.Join([]string{cluster.RoleReplication, cluster.RoleRewind, cluster.RoleMonitor, cluster.RoleProxy, cluster.RoleBackup}, "', '"), cluster.RoleSuperuser)

// A session that hides what it does (track_activities off) shows its
// transaction's id and snapshot all the same. What waits for a standby has
// written its commit record; else its text tells.
var clientsSQL = `select count(*), count(*) filter (where wait_event = 'SyncRep' or state = 'active' and query ~* '^\s*(commit|end|prepare\s+transaction)'),
 coalesce(round(extract(epoch from max(clock_timestamp() - coalesce(xact_start, query_start))) * 1000), 0)
 from pg_stat_activity where backend_type = 'client backend' and not coalesce(` + ownSessions + `, false)
 and (state not in ('idle', 'disabled') or backend_xid is not null or backend_xmin is not null)`

// LookAtClients looks once.
func (i *Instance) LookAtClients(ctx context.Context) (Clients, error) {
	res, err := i.queryOn(ctx, &i.drain, clientsSQL)
	if err != nil {
		return Clients{}, fmt.Errorf("look at the clients' sessions: %w", err)
	}
	r := res[0][0]
	var n [3]int
	for k := range n {
		if n[k], err = strconv.Atoi(string(r[k])); err != nil {
			return Clients{}, fmt.Errorf("look at the clients' sessions: %w", err)
		}
	}
	return Clients{Open: n[0], InCommit: n[1], Oldest: time.Duration(n[2]) * time.Millisecond}, nil
}

// Who comes by a proxy shows the certificate of its host; whoever comes over the
// socket may be one.
var endIdleSQL = `select count(*) filter (where pg_terminate_backend(a.pid)) from pg_stat_activity a join pg_stat_ssl s using (pid)
 where backend_type = 'client backend' and state = 'idle' and backend_xid is null and client_addr is not null and s.client_dn is null
 and not coalesce(` + ownSessions + `, false)`

// EndIdleClients ends the sessions of clients that have come by themselves, by no
// proxy, and are outside a transaction (57P01: nothing of theirs is in doubt). It
// gives how many.
func (i *Instance) EndIdleClients(ctx context.Context) (int, error) {
	res, err := i.queryOn(ctx, &i.drain, endIdleSQL)
	if err != nil {
		return 0, fmt.Errorf("end idle sessions: %w", err)
	}
	return strconv.Atoi(string(res[0][0][0]))
}

// EndLooking closes the session of these looks.
func (i *Instance) EndLooking() { i.drain.close() }
