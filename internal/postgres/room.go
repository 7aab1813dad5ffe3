package postgres

import (
	"context"
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// room is how many connections are kept free for the herd's own roles: for a
// rewind, a backup, the look-ups of proxies. From PostgreSQL 16 on it does that
// itself (reserved_connections); before, only the superuser has slots of its own.
const room = 5

// freeSQL is how many connections ordinary roles may still open, NULL where
// PostgreSQL keeps room itself.
const freeSQL = `case when current_setting('reserved_connections', true) is null then current_setting('max_connections')::int
 - current_setting('superuser_reserved_connections')::int - (select count(*) from pg_stat_activity where backend_type = 'client backend') end`

var endOrdinarySQL = fmt.Sprintf(`select s.usename, pg_terminate_backend(s.pid) from pg_stat_activity s join pg_roles r on r.oid = s.usesysid
 where s.backend_type = 'client backend' and not r.rolsuper and s.usename not in ('%s')
 order by s.state = 'idle' desc, s.state like 'idle in transaction%%' desc, s.backend_start desc limit greatest(%d - (%s), 0)`,
	strings.Join([]string{cluster.RoleReplication, cluster.RoleRewind, cluster.RoleMonitor, cluster.RoleProxy, cluster.RoleBackup}, "', '"), room, freeSQL)

// MakeRoom ends sessions of ordinary roles, idle ones first and the newest of
// them first, until there is room for the herd's own. It gives whose they were.
func (i *Instance) MakeRoom(ctx context.Context) ([]string, error) {
	res, err := i.query(ctx, endOrdinarySQL)
	if err != nil {
		return nil, fmt.Errorf("make room for the herd's sessions: %w", err)
	}
	var ended []string
	for _, r := range res[0] {
		if boolOf(r[1]) {
			ended = append(ended, string(r[0]))
		}
	}
	if len(ended) > 0 {
		i.log.Warn("ordinary sessions ended to make room for the herd's own", "sessions", len(ended))
	}
	return ended, nil
}
