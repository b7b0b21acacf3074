-- Every data type a column can have, with what is needed to read its text.
select t.oid::int8,
       t.typname::text,
       case
         when t.typtype = 'd' then 'domain'
         when t.typtype = 'e' then 'enum'
         when t.typtype = 'c' then 'composite'
         when t.typtype in ('r', 'm') then 'range'
         -- int2vector, point and others can be subscripted without being arrays.
         when t.typoutput = 'pg_catalog.array_out'::regproc then 'array'
         else 'base'
       end,
       (case when t.typtype = 'd' then t.typbasetype else t.typelem end)::int8,
       t.typdelim::text,
       f.names,
       f.types
from pg_catalog.pg_type t
left join lateral (
  select array_agg(a.attname::text order by a.attnum) as names,
         array_agg(a.atttypid::int8 order by a.attnum) as types
  from pg_catalog.pg_attribute a
  where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
) f on t.typtype = 'c'
where t.typtype <> 'p'
