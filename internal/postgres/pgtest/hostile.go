package pgtest

// Hijacked is what PostgreSQL's log says for every statement that fell for the
// functions and operators of Hostile.
const Hijacked = "HIJACKED"

// Hostile makes role app the owner of database postgres, with a schema that
// shadows all functions and operators of PostgreSQL that can be shadowed, and
// sets for every session there what an owner may set: run as superuser in
// database postgres, statement by statement. Tame takes the settings back.
var Hostile = []string{
	"create role app login password 'app'",
	"alter database postgres owner to app",
	"create schema evil authorization app",
	shadow,
	"alter schema evil owner to app",
	"alter database postgres set search_path = evil, pg_catalog",
	"alter database postgres set role = app",
	"alter database postgres set session_authorization = app",
	"alter database postgres set default_transaction_read_only = on",
	"alter database postgres set default_transaction_isolation = serializable",
	"alter database postgres set standard_conforming_strings = off",
	"alter database postgres set datestyle = 'SQL, DMY'",
	"alter database postgres set statement_timeout = '1ms'",
	"alter database postgres set transform_null_equals = on",
}

// Tame undoes what Hostile does to the sessions of others.
var Tame = []string{"alter database postgres reset all", "alter database postgres owner to postgres", "drop schema evil cascade", "drop role app"}

// shadow makes a function for every function of pg_catalog and an operator for
// every operator, but those of pseudo types.
const shadow = `do $do$
declare f record; n int := 0; body text;
begin
  for f in select p.proname, pg_get_function_identity_arguments(p.oid) as args, pg_get_function_arguments(p.oid) as full_args, pg_get_function_result(p.oid) as res
      from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and p.proretset is false
      and p.pronargs <= 3 and not exists (select from unnest(p.proargtypes || array[p.prorettype]) t join pg_type y on y.oid = t where y.typtype = 'p') loop
    begin
      execute format('create function evil.%I(%s) returns %s language plpgsql as $f$ begin raise log ''HIJACKED by %%: %s'', current_user; return null; end $f$',
        f.proname, f.args, f.res, f.proname);
    exception when others then null;
    end;
  end loop;
  for f in select o.oprname, o.oprleft::regtype as l, o.oprright::regtype as r, o.oprresult::regtype as res from pg_operator o
      where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprleft <> 0 and o.oprright <> 0
      and not exists (select from pg_type y where y.oid in (o.oprleft, o.oprright, o.oprresult) and y.typtype = 'p') loop
    n := n + 1;
    begin
      execute format('create function evil.op_%s(%s, %s) returns %s language plpgsql as $f$ begin raise log ''HIJACKED by %%: operator'', current_user; return null; end $f$', n, f.l, f.r, f.res);
      execute format('create operator evil.%s (leftarg = %s, rightarg = %s, function = evil.op_%s)', f.oprname, f.l, f.r, n);
    exception when others then null;
    end;
  end loop;
end $do$`
