-- The published tables that match pairs of schema and table, where `*` stands for all, with the columns and the events
-- that are published.
select c.oid::int8,
       n.nspname::text,
       c.relname::text,
       array(
         -- A column of Postgres 15 and newer. Before that, every column is published that is not generated.
         select jsonb_array_elements_text(to_jsonb(p) -> 'attnames')
         union all
         select a.attname
         from pg_catalog.pg_attribute a
         where not to_jsonb(p) ? 'attnames'
           and a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
       ),
       array(
         select kind
         from (values ('INSERT', b.pubinsert), ('UPDATE', b.pubupdate), ('DELETE', b.pubdelete)) as e (kind, is_published)
         where is_published
       )
from pg_catalog.pg_publication_tables p
join pg_catalog.pg_publication b on b.pubname = p.pubname
join pg_catalog.pg_namespace n on n.nspname = p.schemaname
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
where p.pubname = %(publication)s
  and exists (
    select
    from unnest(%(schemas)s::text[], %(tables)s::text[]) as wanted (schema_name, table_name)
    where wanted.schema_name in ('*', p.schemaname) and wanted.table_name in ('*', p.tablename)
  )
order by n.nspname, c.relname
