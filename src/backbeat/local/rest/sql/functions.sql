-- The functions of one name. Arguments are those a caller gives; `shape` says what one result looks like.
select p.provolatile <> 'v' as stable,
       p.proretset as many,
       case
         when p.prorettype = 'void'::regtype then 'void'
         when t.typtype = 'c' or p.prorettype = 'record'::regtype or p.proargmodes && '{o,b,t}' then 'row'
         else 'value'
       end as shape,
       p.pronargdefaults::int as defaults,
       inputs.names,
       inputs.type_schemas,
       inputs.type_names
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
join pg_type t on t.oid = p.prorettype
cross join lateral (
  select coalesce(array_agg(coalesce(a.name, '') order by a.position), '{}') as names,
         coalesce(array_agg(an.nspname::text order by a.position), '{}') as type_schemas,
         coalesce(array_agg(at.typname::text order by a.position), '{}') as type_names
  from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes)
    with ordinality as a (type, name, mode, position)
  join pg_type at on at.oid = a.type
  join pg_namespace an on an.oid = at.typnamespace
  where a.mode is null or a.mode in ('i', 'b')
) inputs
where n.nspname = %(schema)s and p.proname = %(name)s and p.prokind = 'f' and p.provariadic = 0
  and p.prorettype <> all ('{trigger,event_trigger}'::regtype[])
order by p.oid
