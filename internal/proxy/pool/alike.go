package pool

import (
	"context"
	"fmt"
	"time"

	"manada/internal/proxy/wire"
)

// alikeSQL digests the settings that have to be the same for two sessions of a client to
// answer a read in the same way: all that roles and databases are given at log-in
// (an application's own are not seen by name), and what the nodes' files could
// give differently. It runs in the client's session, whose search_path is not
// ours: every name in it is qualified.
const alikeSQL = `select pg_catalog.md5(pg_catalog.concat_ws('|',
	(select pg_catalog.string_agg(pg_catalog.concat(s.setdatabase, '/', s.setrole, '/', s.setconfig), ',' order by s.setdatabase, s.setrole)
		from pg_catalog.pg_db_role_setting s
		where s.setdatabase operator(pg_catalog.=) any (array[0::pg_catalog.oid,
			(select d.oid from pg_catalog.pg_database d where d.datname operator(pg_catalog.=) pg_catalog.current_database())])
		and s.setrole operator(pg_catalog.=) any (array[0::pg_catalog.oid,
			(select r.oid from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) session_user)])),
	(select pg_catalog.string_agg(pg_catalog.concat(n, '=', pg_catalog.current_setting(n, true)), ',') from pg_catalog.unnest(array[
		'search_path', 'role', 'TimeZone', 'timezone_abbreviations', 'DateStyle', 'IntervalStyle', 'bytea_output', 'extra_float_digits',
		'client_encoding', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time', 'default_text_search_config', 'xmlbinary', 'xmloption',
		'array_nulls', 'backslash_quote', 'standard_conforming_strings', 'transform_null_equals', 'quote_all_identifiers',
		'row_security', 'gin_fuzzy_search_limit', 'session_replication_role', 'statement_timeout', 'lock_timeout',
		'default_transaction_isolation']) n)))`

// Alike is equal for two sessions whose settings are, as far as the answer to a
// read depends on them. It is asked before the session is used.
func (b *Backend) Alike(ctx context.Context) (string, error) {
	if len(b.Rest) > 0 {
		return "", fmt.Errorf("%w: bytes before the first query", wire.ErrProtocol)
	}
	stop := context.AfterFunc(ctx, func() { b.Conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var out string
	err := b.ask(wire.AppendMessage(nil, wire.TypeQuery, []byte(alikeSQL+"\x00")), func(cols []string) error {
		out = cols[0]
		return nil
	}, 1)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	return out, err
}
