-- What roles may read of tables: columns, row level security, and the policies that decide. One JSON object a row,
-- the fields of `backbeat.postgres.policies.Access`.
-- Run with an empty search_path: then expressions and types are written with the schema of everything outside
-- pg_catalog, and `true` is nothing but true.
with gullible as materialized (
  -- IMMUTABLE functions that nevertheless look at who is asking. A cached plan keeps what they said to somebody else.
  select p.oid::regprocedure::text as signature
  from pg_proc p
  join pg_language l on l.oid = p.prolang
  cross join lateral (
    select regexp_replace(
      coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), '\m(extract|overlay|substring|trim)\s*\([^()]*\)', '', 'gi'
    ) as text
  ) body
  where p.oid >= 16384 and p.provolatile = 'i' and l.lanname not in ('c', 'internal')
    and (
      body.text ~* '\m(current_setting|current_user|current_role|session_user|execute|from)\M'
      or exists (
        select
        from regexp_matches(body.text, '([[:alnum:]_$]+)"?\s*\(', 'g') as called (name)
        join pg_proc f on lower(f.proname) = lower(called.name[1])
        where f.oid >= 16384 and f.provolatile <> 'i'
      )
    )
)
select to_json(access)::text
from (
  select
    c.oid::int8 as oid,
    n.nspname as schema,
    c.relname as table,
    c.relkind = 'p' as partitioned,
    r.rolname as role,
    pg_has_role(session_user, r.oid, 'MEMBER') as assumable,
    has_schema_privilege(r.oid, n.oid, 'USAGE') as usable,
    has_table_privilege(r.oid, c.oid, 'SELECT') as whole,
    c.relrowsecurity as row_security,
    r.rolsuper or r.rolbypassrls or (not c.relforcerowsecurity and pg_has_role(r.oid, c.relowner, 'USAGE')) as exempt,
    (
      select coalesce(json_agg(json_build_object(
        'name', a.attname,
        'type_oid', a.atttypid::int8,
        'type', format_type(a.atttypid, -1),
        'type_name', t.typname,
        'deterministic', coalesce(o.collisdeterministic, true),
        'selectable', has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
      ) order by a.attnum), '[]')
      from pg_attribute a
      join pg_type t on t.oid = a.atttypid
      left join pg_collation o on o.oid = a.attcollation
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ) as columns,
    (
      select coalesce(json_agg(a.attname order by k.position), '[]')
      from pg_index i
      cross join lateral unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
      join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
      where i.indrelid = c.oid and i.indisprimary and k.position <= i.indnkeyatts
    ) as key,
    (
      select coalesce(json_agg(json_build_object(
        'permissive', p.polpermissive,
        'condition', pg_get_expr(p.polqual, p.polrelid),
        'volatile', pg_get_expr(p.polqual, p.polrelid) ~ '\mset_config\M' or exists (
          select
          from pg_depend d
          left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
          join pg_proc f on f.oid = coalesce(o.oprcode, d.refobjid)
          where d.classid = 'pg_policy'::regclass and d.objid = p.oid
            and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
            and f.provolatile = 'v'
        )
      ) order by p.polname), '[]')
      from pg_policy p
      where p.polrelid = c.oid and p.polcmd in ('r', '*')
        and exists (
          select from unnest(p.polroles) as wanted (role)
          where wanted.role = 0 or pg_has_role(r.oid, wanted.role, 'USAGE')
        )
    ) as policies,
    (
      -- What those policies look into. Views and foreign tables may be anything.
      select coalesce(json_agg(json_build_object(
        'schema', s.nspname,
        'table', t.relname,
        'users', (
          select coalesce(json_agg(a.attname), '[]')
          from pg_attribute a
          where a.attrelid = t.oid and a.atttypid = 'uuid'::regtype and a.attnum > 0 and not a.attisdropped
        ),
        'reader', (
          select reader.rolname
          from pg_roles reader
          where (reader.rolbypassrls or not t.relrowsecurity)
            and not reader.rolsuper
            and pg_has_role(session_user, reader.oid, 'MEMBER')
            and has_schema_privilege(reader.oid, s.oid, 'USAGE')
            and has_table_privilege(reader.oid, t.oid, 'SELECT')
          order by reader.rolbypassrls, reader.rolname
          limit 1
        )
      )), '[]')
      from pg_class t
      join pg_namespace s on s.oid = t.relnamespace
      where t.relkind in ('r', 'p')
        and t.oid in (
          select d.refobjid
          from pg_policy p
          join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_class'::regclass
          where p.polrelid = c.oid
        )
    ) as related,
    (select coalesce(json_agg(g.signature order by g.signature), '[]') from gullible g) as gullible,
    (
      -- Blanks aside, a definition that returns the claim `sub`: ours, and those that are in use.
      select coalesce(bool_and(
        f.pronargs = 0 and f.prorettype = 'uuid'::regtype and not f.proretset and f.proconfig is null
          and l.lanname = 'sql'
          and regexp_replace(f.prosrc, '\s+|;\s*$', '', 'g') in (
            $$selectcoalesce(nullif(current_setting('request.jwt.claim.sub',true),''),nullif($$
              || $$current_setting('request.jwt.claims',true),'')::jsonb->>'sub')::uuid$$,
            $$selectcoalesce(nullif(current_setting('request.jwt.claim.sub',true),''),(nullif($$
              || $$current_setting('request.jwt.claims',true),'')::jsonb->>'sub'))::uuid$$,
            $$selectnullif(current_setting('request.jwt.claim.sub',true),'')::uuid$$
          )
      ), false)
      from pg_proc f
      join pg_namespace a on a.oid = f.pronamespace
      join pg_language l on l.oid = f.prolang
      where a.nspname = 'auth' and f.proname = 'uid'
    ) as uid_is_sub
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  cross join pg_roles r
  where c.oid = any(%(tables)s::oid[]) and r.rolname = any(%(roles)s::text[])
) access
