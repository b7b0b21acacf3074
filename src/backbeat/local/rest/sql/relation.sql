-- A table or view and its columns, one row each; no row when there is no such relation, and one row of nulls
-- for a table without columns. `filler` is what fills a column that is not written.
select a.attname::text as name,
       tn.nspname::text as type_schema,
       t.typname::text as type_name,
       case
         when a.attidentity <> '' then
           format('nextval(%%L)', pg_get_serial_sequence(format('%%I.%%I', n.nspname, c.relname), a.attname))
         when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid)
       end as filler,
       coalesce(a.attnum = any (key.conkey), false) as key
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_type t on t.oid = a.atttypid
left join pg_namespace tn on tn.oid = t.typnamespace
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
left join pg_constraint key on key.conrelid = c.oid and key.contype = 'p'
where n.nspname = %(schema)s and c.relname = %(name)s and c.relkind in ('r', 'p', 'v', 'm', 'f')
order by a.attnum
