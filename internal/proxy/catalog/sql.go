package catalog

// query reads, in rows of kind, class, oid, class, oid, name, text: functions that
// are not built in ('f': language and extension in the first line of the text), names
// of dangerous ones that are, and of what they run ('s'), and of the others and of types, which
// convert when they are called ('h'), who depends on whom ('e': the second on the
// first), names ('n'; 'p' of operators and casts between built-in types only), and
// what is dangerous by its tree ('t': pg_depend does not have what is built in).
// $1 are harmless volatile functions, $2 dangerous others.
const query = `
with seed as materialized (
	select oid, proname, prosrc from pg_catalog.pg_proc
	where oid < 16384 and (provolatile = 'v' and not proname = any ($1::text[]::name[]) or proname = any ($2::text[]::name[]))),
own as (
	select p.oid, p.proname, l.lanname, e.extname, p.prosrc, p.prosqlbody, p.proargdefaults
	from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
		left join pg_catalog.pg_depend x on x.classid = 1255 and x.objid = p.oid and x.deptype = 'e' and x.refclassid = 3079
		left join pg_catalog.pg_extension e on e.oid = x.refobjid
	where p.oid >= 16384),
tree (class, oid, body) as (
	select 1259, ev_class, ev_action::text from pg_catalog.pg_rewrite where ev_class >= 16384
	union all select 1259, polrelid, concat(polqual::text, polwithcheck::text) from pg_catalog.pg_policy
	union all select 1259, adrelid, adbin::text from pg_catalog.pg_attrdef
	union all select case when contypid <> 0 then 1247 else 1259 end, case when contypid <> 0 then contypid else conrelid end, conbin::text
		from pg_catalog.pg_constraint where conbin is not null and oid >= 16384
	union all select 1259, tgrelid, tgqual::text from pg_catalog.pg_trigger where tgqual is not null
	union all select 1247, oid, typdefaultbin::text from pg_catalog.pg_type where typdefaultbin is not null and oid >= 16384
	union all select 1259, indrelid, concat(indexprs::text, indpred::text) from pg_catalog.pg_index where indrelid >= 16384 and (indexprs is not null or indpred is not null)
	union all select 1255, oid, concat(prosqlbody::text, proargdefaults::text) from own where prosqlbody is not null or proargdefaults is not null)
select 's', 0, 0::oid, 0, 0::oid, proname::text, prosrc from seed
union all select distinct 'h', 0, 0::oid, 0, 0::oid, proname::text, '' from pg_catalog.pg_proc where oid < 16384 and prokind <> 'p' and not exists (select from seed s where s.proname = pg_proc.proname)
union all select 'h', 0, 0, 0, 0, typname, '' from pg_catalog.pg_type where oid < 16384 and not exists (select from seed s where s.proname = typname)
union all select 'f', 1255, oid, 0, 0, proname,
	concat(lanname, ' ', extname, E'\n', case when octet_length(prosrc) > 30000 then '"' when prosqlbody is null then prosrc end) from own
union all select 't', t.class, t.oid, 0, 0::oid, '', '' from tree t where exists (
	select from pg_catalog.regexp_matches(t.body, ':(?:funcid|aggfnoid|winfnoid) (\d+)', 'g') m
	where m[1] = any (array(select oid::text from seed)))
union all select 't', 3466, e.oid, 0, 0, '', '' from pg_catalog.pg_event_trigger e
	join seed s on s.oid = e.evtfoid where e.evtenabled <> 'D'
union all select 't', 1259, t.tgrelid, 0, 0, '', '' from pg_catalog.pg_trigger t join seed s on s.oid = t.tgfoid
union all select 'n', 1259, oid, 0, 0, relname, '' from pg_catalog.pg_class where oid >= 16384 and relkind in ('r', 'v', 'm', 'f', 'p') and relpersistence <> 't'
union all select 'n', 1247, oid, 0, 0, typname, '' from pg_catalog.pg_type where oid >= 16384
union all select case when oprleft < 16384 and oprright < 16384 then 'p' else 'n' end, 2617, oid, 0, 0, oprname, '' from pg_catalog.pg_operator where oid >= 16384
union all select case when castsource < 16384 and casttarget < 16384 then 'p' else 'n' end, 2605, oid, 0, 0, '', '' from pg_catalog.pg_cast where oid >= 16384
union all
select 'e', d.refclassid::int, d.refobjid,
	case when d.classid in (2618, 3256, 2604, 2620) or d.classid = 2606 and c.contypid = 0 then 1259 when d.classid = 2606 then 1247 else d.classid::int end,
	coalesce(r.ev_class, y.polrelid, a.adrelid, t.tgrelid, nullif(c.contypid, 0), c.conrelid, d.objid), '', ''
from pg_catalog.pg_depend d
	left join pg_catalog.pg_rewrite r on d.classid = 2618 and r.oid = d.objid
	left join pg_catalog.pg_policy y on d.classid = 3256 and y.oid = d.objid
	left join pg_catalog.pg_attrdef a on d.classid = 2604 and a.oid = d.objid
	left join pg_catalog.pg_trigger t on d.classid = 2620 and t.oid = d.objid
	left join pg_catalog.pg_constraint c on d.classid = 2606 and c.oid = d.objid
where d.classid in (2618, 3256, 2604, 2620, 2606, 1255, 2617, 2605, 1247, 1259, 2616, 2753, 2602, 2603, 2328, 1417, 3466)
	and d.refclassid in (1255, 1259, 1247, 2617, 2616, 2753, 2605, 2328, 1417)
	and not (d.refclassid = 1259 and (d.classid = 2606 and c.contype = 'f' or d.classid = 1259 and d.refobjid = d.objid))
union all select 'e', 1259, inhrelid, 1259, inhparent, '', '' from pg_catalog.pg_inherits
union all select 'e', 1259, indexrelid, 1259, indrelid, '', '' from pg_catalog.pg_index where indexrelid >= 16384
union all select 'e', 1259, conrelid, 1259, confrelid, '', '' from pg_catalog.pg_constraint
	where contype = 'f' and (confdeltype in ('c', 'n', 'd') or confupdtype in ('c', 'n', 'd'))
union all select 'e', 1247, typelem, 1247, oid, '', '' from pg_catalog.pg_type where typelem <> 0 and oid >= 16384
union all select 'e', 1247, reltype, 1259, oid, '', '' from pg_catalog.pg_class where reltype <> 0 and oid >= 16384
union all select 'e', 1259, oid, 1247, reltype, '', '' from pg_catalog.pg_class where reltype <> 0 and oid >= 16384
union all select 'e', 2605, c.oid, 1247, x, '', '' from pg_catalog.pg_cast c, lateral (values (castsource), (casttarget)) v (x) where x >= 16384
union all select 'e', 2617, o.oid, 1247, x, '', '' from pg_catalog.pg_operator o, lateral (values (oprleft), (oprright)) v (x) where x >= 16384
union all select 'e', 2603, oid, 2753, amprocfamily, '', '' from pg_catalog.pg_amproc where oid >= 16384
union all select 'e', 2753, opcfamily, 2616, oid, '', '' from pg_catalog.pg_opclass where oid >= 16384`

// columns of query.
const columns = 7

// changed is another value once one of the catalogs that query reads has changed.
// Temporary objects do not count, in so far as they can be told apart cheaply.
const changed = `select pg_catalog.concat_ws(' ',
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_proc),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_trigger where not tgisinternal),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_rewrite),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_policy),
	(select concat(count(*), '.', sum(a.xmin::text::bigint)) from pg_catalog.pg_attrdef a join pg_catalog.pg_class c on c.oid = a.adrelid where c.relpersistence <> 't'),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_constraint where contype in ('c', 'f')),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_operator where oid >= 16384),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_cast where oid >= 16384),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_opclass where oid >= 16384),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_inherits),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_event_trigger),
	(select concat(count(*), '.', sum(xmin::text::bigint)) from pg_catalog.pg_extension),
	(select concat(count(*), '.', sum(t.xmin::text::bigint)) from pg_catalog.pg_type t where typtype in ('d', 'e', 'r', 'm', 'b') and oid >= 16384 and typcategory <> 'A'),
	(select concat(count(*), '.', sum(oid::bigint), '.', sum(pg_catalog.hashtext(relname)::bigint)) from pg_catalog.pg_class where oid >= 16384 and relkind in ('r', 'v', 'm', 'f', 'p', 'i', 'I') and relpersistence <> 't'),
	(select concat(count(*), '.', sum(attrelid::bigint * atttypid::bigint)) from pg_catalog.pg_attribute where atttypid >= 16384 and attnum > 0))`
