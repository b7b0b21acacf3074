-- What runs away behind a stream: publications that are gone, and WAL that is kept for its slot.
select array(
         select name
         from unnest(%(publications)s::text[]) name
         where not exists (select from pg_catalog.pg_publication where pubname = name)
       ) as missing,
       -- The name of a WAL file begins with it.
       ('x' || left(pg_catalog.pg_walfile_name(here.lsn), 8))::bit(32)::int8 as timeline,
       (here.lsn - '0/0'::pg_catalog.pg_lsn)::int8 as lsn,
       -- The time when this statement began: what was committed by then lies before the position above.
       extract(epoch from statement_timestamp())::float8 as "when",
       pg_catalog.pg_wal_lsn_diff(here.lsn, slot.restart_lsn)::int8 as retained,
       pg_catalog.pg_wal_lsn_diff(here.lsn, slot.confirmed_flush_lsn)::int8 as behind
from (select pg_catalog.pg_current_wal_lsn() as lsn) here
left join pg_catalog.pg_replication_slots slot on slot.slot_name = %(slot)s
