-- How the columns of tables are compared: one JSON object a column, the fields of
-- `backbeat.postgres.registrar.Comparable`. Run with an empty search_path, so that types come with their schema.
with recursive base (column_type, type) as (
  select a.atttypid, a.atttypid
  from pg_catalog.pg_attribute a
  where a.attrelid = any(%(tables)s::oid[]) and a.attnum > 0 and not a.attisdropped
  union
  -- A domain compares as what it is based on, a varchar as a text.
  select b.column_type, case when t.typtype = 'd' then t.typbasetype else 'pg_catalog.text'::regtype end
  from base b
  join pg_catalog.pg_type t on t.oid = b.type
  where t.typtype = 'd' or t.oid = 'pg_catalog.varchar'::regtype
)
select to_json(comparable)::text
from (
  select
    a.attrelid::int8 as table,
    a.attname as column,
    a.atttypid::int8 as declared_oid,
    format_type(a.atttypid, -1) as declared,
    coalesce(o.collisdeterministic, true) as deterministic,
    t.oid::int8 as oid,
    format_type(t.oid, -1) as type,
    t.typtype = 'e' as enum,
    case when o.oid is not null then format('%%I.%%I', n.nspname, o.collname) end as collation,
    -- Whether texts come in the order of their bytes. Those of another encoding are not the bytes that we see.
    coalesce(pg_catalog.getdatabaseencoding() = 'UTF8' and case
      when o.oid <> 'pg_catalog."default"'::regcollation
        then o.collprovider = 'b' or o.oid in ('pg_catalog."C"'::regcollation, 'pg_catalog."POSIX"'::regcollation)
      -- The provider is a column of Postgres 15 and newer.
      when coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' then d.datcollate in ('C', 'POSIX')
      else to_jsonb(d) ->> 'datlocprovider' = 'b'
    end, false) as bytewise,
    (
      select coalesce(json_object_agg(op.oprname, json_build_object(
        'schema', op.oprnamespace::regnamespace, 'right', format_type(op.oprright, -1)
      )), '{}')
      from pg_catalog.pg_operator op
      where op.oprleft = t.oid and op.oprresult = 'pg_catalog.bool'::regtype
        and case
          when op.oprname in ('=', '<', '<=', '>', '>=') then op.oprright = t.oid
          when op.oprname in ('~~', '~~*', '~', '~*')
            then op.oprright = case when t.oid = 'pg_catalog.bytea'::regtype then t.oid else 'pg_catalog.text'::regtype end
          else false
        end
        -- Of operators beside those of Postgres, only the ones that come with the type.
        and (
          op.oprnamespace = 'pg_catalog'::regnamespace
          or op.oprnamespace = t.typnamespace and op.oprowner = t.typowner
        )
    ) as operators
  from pg_catalog.pg_attribute a
  join base on base.column_type = a.atttypid
  join pg_catalog.pg_type t on t.oid = base.type and t.typtype <> 'd' and t.oid <> 'pg_catalog.varchar'::regtype
  join pg_catalog.pg_database d on d.datname = current_database()
  left join pg_catalog.pg_collation o on o.oid = a.attcollation
  left join pg_catalog.pg_namespace n on n.oid = o.collnamespace
  where a.attrelid = any(%(tables)s::oid[]) and a.attnum > 0 and not a.attisdropped
) comparable
