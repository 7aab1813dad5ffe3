package postgres

import (
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// fixture is something inside the database that the herd leans on.
type fixture struct {
	name string // for people
	// ok is an expression over the catalogs alone: it runs nothing that somebody
	// else could have made. NULL counts as false.
	ok string
	// make puts it right, whatever stands in its place: statements for the
	// superuser, in database postgres, also in single-user mode.
	make []string
}

const (
	// me is who owns all of it: the superuser that asks.
	me = "(select oid from pg_roles where rolname = session_user)"
	// aside is the end of the name under which something is set aside that is not
	// ours and may hold somebody's data.
	aside = "'_set_aside_' || floor(extract(epoch from clock_timestamp()) * 1000)"
)

// fixtures are all of them, in the order in which they need each other. The
// passwords of the roles are compared apart: see passwords.
var fixtures = fixtureList()

func fixtureList() []fixture {
	list := []fixture{
		{"database postgres: connections allowed",
			"(select datallowconn and datconnlimit = -1 from pg_database where datname = current_database())",
			[]string{"alter database " + cluster.Database + " with allow_connections true connection limit -1"}},
		{"role " + cluster.RoleSuperuser, "(select rolsuper and rolcanlogin from pg_roles where rolname = session_user)",
			[]string{"alter role " + cluster.RoleSuperuser + " superuser login"}},
		{"pg_cancel_backend: not for everybody", signalsKept, signalsRevoked},
		roleFixture(cluster.RoleReplication, "replication"),
		roleFixture(cluster.RoleRewind, "noreplication"),
		roleFixture(cluster.RoleMonitor, "noreplication"),
		roleFixture(cluster.RoleProxy, "noreplication"),
		roleFixture(cluster.RoleBackup, "noreplication"),
		grantFixture(cluster.RoleReplication, nil, nil),
		grantFixture(cluster.RoleRewind, []string{"pg_checkpoint", "pg_monitor", reservedRole}, []string{
			"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)"}),
		grantFixture(cluster.RoleMonitor, []string{"pg_monitor", reservedRole}, nil),
		grantFixture(cluster.RoleProxy, []string{reservedRole}, nil),
		grantFixture(cluster.RoleBackup, []string{"pg_read_all_settings", reservedRole}, []string{
			"pg_backup_start(text, boolean)", "pg_backup_stop(boolean)", "pg_create_restore_point(text)", "pg_switch_wal()"}),
		schemaFixture,
		tableFixture("control", "epoch bigint not null, node text not null, nonce text not null, at timestamp with time zone not null default now()", "epoch"),
		lookupFixture,
	}
	for _, role := range []string{cluster.RoleMonitor, cluster.RoleProxy} {
		list = append(list, fixture{role + ": access to schema manada",
			"(select bool_and(has_schema_privilege(r.oid, c.relnamespace, 'usage') and has_table_privilege(r.oid, c.oid, 'select')) " +
				"from pg_roles r, " + relation("control") + " and r.rolname = " + literal(role) + ")",
			[]string{"grant usage on schema manada to " + role, "grant select on manada.control to " + role}})
	}
	return list
}

// reservedRole may use the slots of reserved_connections, from PostgreSQL 16 on.
const reservedRole = "pg_use_reserved_connections"

const signalsKept = `not has_function_privilege('public', 'pg_cancel_backend(int)', 'execute') and not has_function_privilege('public', 'pg_terminate_backend(int, bigint)', 'execute')
 and has_function_privilege('pg_signal_backend', 'pg_cancel_backend(int)', 'execute') and has_function_privilege('pg_signal_backend', 'pg_terminate_backend(int, bigint)', 'execute')`

// signalsRevoked take pg_cancel_backend and pg_terminate_backend from PUBLIC
// (finding H9: a cancelled wait is reported as a commit).
var signalsRevoked = []string{
	"revoke execute on function pg_cancel_backend(int), pg_terminate_backend(int, bigint) from public cascade",
	"grant execute on function pg_cancel_backend(int), pg_terminate_backend(int, bigint) to pg_signal_backend",
}

// roleFixture: the role is there with the attributes that it needs and no others,
// and nobody else may act as it.
func roleFixture(name, replication string) fixture {
	f := fixture{"role " + name,
		fmt.Sprintf(`exists (select from pg_roles r where rolname = %s and rolcanlogin and rolinherit and rolreplication = %v and rolconnlimit = -1
 and not (rolsuper or rolcreaterole or rolcreatedb or rolbypassrls) and coalesce(rolvaliduntil, 'infinity') = 'infinity'
 and not exists (select from pg_db_role_setting s where s.setrole = r.oid))`, literal(name), replication == "replication"),
		[]string{
			fmt.Sprintf("do $do$ begin if not exists (select from pg_roles where rolname = %s) then create role %s; end if; end $do$", literal(name), name),
			"alter role " + name + " login inherit " + replication + " nosuperuser nocreaterole nocreatedb nobypassrls connection limit -1 valid until 'infinity'",
			"alter role " + name + " reset all",
			fmt.Sprintf(`do $do$ declare d name; begin
 for d in select datname from pg_db_role_setting s join pg_database b on b.oid = s.setdatabase where s.setrole = %s::regrole loop
 execute format('alter role %s in database %%I reset all', d); end loop; end $do$`, literal(name), name),
		}}
	if name != cluster.RoleMonitor { // which may do nothing but look
		f.ok += fmt.Sprintf(" and not exists (select from pg_auth_members m join pg_roles r on r.oid = m.roleid where r.rolname = %s)", literal(name))
		f.make = append(f.make, fmt.Sprintf(`do $do$ declare g record; begin
 for g in select member::regrole as who, case when current_setting('server_version_num')::int >= 160000 then ' granted by ' || grantor::regrole else '' end as via
 from pg_auth_members where roleid = %s::regrole loop execute 'revoke %s from ' || g.who || g.via || ' cascade'; end loop; end $do$`, literal(name), name))
	}
	return f
}

// grantFixture: the role may connect to database postgres, is a member of roles
// (those that this PostgreSQL has) and may execute functions.
func grantFixture(name string, roles, functions []string) fixture {
	ok := []string{"has_database_privilege(r.oid, current_database(), 'connect')", "has_schema_privilege(r.oid, 'pg_catalog', 'usage')"}
	make := []string{"grant connect on database " + cluster.Database + " to " + name, "grant usage on schema pg_catalog to " + name}
	for _, m := range roles {
		ok = append(ok, fmt.Sprintf("coalesce(pg_has_role(r.oid, (select oid from pg_roles where rolname = %s), 'usage'), true)", literal(m)))
		make = append(make, fmt.Sprintf("do $do$ begin if exists (select from pg_roles where rolname = %s) then grant %s to %s; end if; end $do$", literal(m), m, name))
	}
	for _, f := range functions {
		ok = append(ok, "has_function_privilege(r.oid, "+literal(f)+", 'execute')")
		make = append(make, "grant execute on function "+f+" to "+name)
	}
	return fixture{"what " + name + " may do",
		"(select " + strings.Join(ok, " and ") + " from pg_roles r where rolname = " + literal(name) + ")", make}
}

// schemaFixture: a schema of that name that is somebody else's is set aside.
var schemaFixture = fixture{"schema manada",
	"exists (select from pg_namespace n where nspname = 'manada' and nspowner = " + me +
		" and not exists (select from aclexplode(nspacl) x where x.grantee <> nspowner and x.privilege_type = 'CREATE'))",
	[]string{
		"do $do$ begin if exists (select from pg_namespace where nspname = 'manada' and nspowner <> " + me + ") then execute format('alter schema manada rename to %I', 'manada' || " + aside + "); end if; end $do$",
		"create schema if not exists manada",
		`do $do$ declare g record; begin
 for g in select distinct case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as who
 from pg_namespace, aclexplode(nspacl) where nspname = 'manada' and grantee <> nspowner and privilege_type = 'CREATE' loop
 execute 'revoke create on schema manada from ' || g.who || ' cascade'; end loop; end $do$`,
	}}

// relation is the FROM of what a name means in schema manada.
func relation(name string) string {
	return "pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'manada' and c.relname = " + literal(name)
}

// trusted is true of a table that is ours and runs nothing of anybody else's
// when it is read or written.
func trusted(name string) string {
	return "exists (select from " + relation(name) + " and n.nspowner = " + me + ` and c.relowner = n.nspowner and c.relkind = 'r'
 and not (c.relhasrules or c.relhastriggers or c.relrowsecurity or c.relispartition or c.relhassubclass))`
}

// trustedOnly comes before a statement that reads or writes the control table:
// it fails, and with it the statement, when that is not ours.
var trustedOnly = "select 1 / case when " + trusted("control") + " then 1 else 0 end;\n"

// tableFixture: what has the name and is not this table is set aside.
func tableFixture(name, columns, key string) fixture {
	shape := `(select string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
 || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''), ', ' order by a.attnum)
 from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum where a.attrelid = c.oid and a.attnum > 0 and a.attacl is null)`
	return fixture{"table manada." + name,
		trusted(name) + " and exists (select from " + relation(name) + ` and c.relpersistence = 'p'
 and not exists (select from aclexplode(c.relacl) x where x.grantee <> c.relowner and x.privilege_type <> 'SELECT')
 and (select count(*) = 1 and bool_and(indisprimary and indisvalid and indkey::text = '1') from pg_index where indrelid = c.oid)
 and not exists (select from pg_constraint where conrelid = c.oid and contype not in ('p', 'n'))
 and ` + shape + " = " + literal(columns) + ")",
		[]string{
			fmt.Sprintf(`do $do$ begin if exists (select from %s) then execute format('alter table manada.%s rename to %%I', '%s' || %s); end if; end $do$`,
				relation(name), name, name, aside),
			fmt.Sprintf("create table manada.%s (%s, primary key (%s))", name, columns, key),
		}}
}

const lookupBody = "select a.rolname, a.rolpassword from pg_authid a where a.rolname = $1 and (a.rolvaliduntil is null or a.rolvaliduntil > now())"

// lookupFixture: there is one function of that name, it is ours, and only the
// proxy may call it. Any other is dropped: it could give verifiers away.
var lookupFixture = fixture{"function manada.user_lookup",
	`(select count(*) = 1 and bool_and(p.prokind = 'f' and p.proargtypes = '25' and p.prosecdef and p.proretset and p.provolatile = 's' and p.proowner = ` + me + `
 and p.prolang = (select oid from pg_language where lanname = 'sql') and p.prosrc = ` + literal(lookupBody) + `
 and p.proargnames = '{name,rolname,rolpassword}' and p.proallargtypes = '{25,19,25}' and p.proconfig = '{"search_path=pg_catalog, pg_temp"}'
 and (select count(*) = 2 and bool_and(x.grantee = p.proowner or pg_get_userbyid(x.grantee) = ` + literal(cluster.RoleProxy) + `) from aclexplode(p.proacl) x))
 from pg_proc p where p.pronamespace = (select oid from pg_namespace where nspname = 'manada') and p.proname = 'user_lookup')`,
	[]string{
		`do $do$ declare p text; begin
 for p in select oid::regprocedure::text from pg_proc where pronamespace = (select oid from pg_namespace where nspname = 'manada') and proname = 'user_lookup' loop
 execute 'drop routine ' || p || ' cascade'; end loop; end $do$`,
		"create function manada.user_lookup(name text) returns table (rolname name, rolpassword text)\n" +
			"language sql stable security definer set search_path = pg_catalog, pg_temp as\n" + literal(lookupBody),
		"revoke all on function manada.user_lookup(text) from public",
		"grant execute on function manada.user_lookup(text) to " + cluster.RoleProxy,
	}}
