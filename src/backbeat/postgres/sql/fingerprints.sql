-- A short text for each table that changes with anything `access.sql` reads. Comparing it costs a tenth of reading.
with shared as materialized (
  select concat_ws(
    '|',
    -- Without the check functions, which come and go with connections.
    (
      select concat_ws(':', count(*), sum(p.xmin::text::int8))
      from pg_proc p
      where p.oid >= 16384 and not pg_is_other_temp_schema(p.pronamespace) and p.pronamespace <> pg_my_temp_schema()
    ),
    (
      select string_agg(concat_ws(':', m.roleid, m.member, m.xmin), ',' order by m.roleid, m.member, m.grantor)
      from pg_auth_members m
    ),
    (
      select string_agg(concat_ws(':', r.oid, r.rolname, r.rolsuper, r.rolbypassrls, r.rolinherit), ',' order by r.oid)
      from pg_roles r
    )
  ) as state
)
select
  c.oid::int8,
  md5(concat_ws(
    '|',
    shared.state,
    c.xmin,
    n.xmin,
    (
      select string_agg(concat_ws(':', a.attnum, a.xmin), ',' order by a.attnum)
      from pg_attribute a where a.attrelid = c.oid and a.attnum > 0
    ),
    (select string_agg(concat_ws(':', p.oid, p.xmin), ',' order by p.oid) from pg_policy p where p.polrelid = c.oid),
    (
      -- The tables they look into, which may be renamed, and their columns, too.
      select string_agg(concat_ws(':', t.xmin, s.xmin, a.attnum, a.xmin), ',' order by t.oid, a.attnum)
      from pg_class t
      join pg_namespace s on s.oid = t.relnamespace
      join pg_attribute a on a.attrelid = t.oid and a.attnum > 0
      where t.oid <> c.oid
        and t.oid in (
          select d.refobjid
          from pg_policy p
          join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_class'::regclass
          where p.polrelid = c.oid
        )
    ),
    (
      select string_agg(concat_ws(':', i.indexrelid, i.xmin), ',')
      from pg_index i where i.indrelid = c.oid and i.indisprimary
    )
  ))
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
cross join shared
where c.oid = any(%(tables)s::oid[])
