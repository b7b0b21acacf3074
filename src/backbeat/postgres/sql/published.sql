-- The published tables that match pairs of schema and table, where `*` stands for all, with their published columns:
-- a column of Postgres 15 and newer.
select c.oid::int8, n.nspname::text, c.relname::text, to_jsonb(p) -> 'attnames'
from pg_catalog.pg_publication_tables p
join pg_catalog.pg_namespace n on n.nspname = p.schemaname
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
where p.pubname = %(publication)s
  and exists (
    select
    from unnest(%(schemas)s::text[], %(tables)s::text[]) as wanted (schema_name, table_name)
    where wanted.schema_name in ('*', p.schemaname) and wanted.table_name in ('*', p.tablename)
  )
order by n.nspname, c.relname
