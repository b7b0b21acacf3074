-- The published tables, each with what changes when the table or a column of it does.
select p.schemaname::text,
       p.tablename::text,
       c.oid::int8,
       format(
         '%%s %%s %%s %%s %%s',
         -- Not its `xmin`: that changes with every TRUNCATE.
         c.relacl,
         (
           select count(*)::text || ' ' || sum(a.xmin::text::int8)::text
           from pg_catalog.pg_attribute a
           where a.attrelid = c.oid and a.attnum > 0
         ),
         -- A value of an enum can be renamed, and new ones come.
         (
           select count(*)::text || ' ' || sum(e.xmin::text::int8)::text
           from pg_catalog.pg_attribute a
           join pg_catalog.pg_enum e on e.enumtypid = a.atttypid
           where a.attrelid = c.oid and a.attnum > 0
         ),
         -- A column of Postgres 15 and newer.
         to_jsonb(p) -> 'attnames',
         (b.pubinsert, b.pubupdate, b.pubdelete)
       )
from pg_catalog.pg_publication_tables p
join pg_catalog.pg_publication b on b.pubname = p.pubname
join pg_catalog.pg_namespace n on n.nspname = p.schemaname
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
where p.pubname = %(publication)s
