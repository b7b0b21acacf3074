-- What must hold before a replication stream can start.
select current_setting('wal_level') as wal_level,
       (select rolsuper or rolreplication from pg_catalog.pg_roles where rolname = current_user) as may_replicate,
       array(
         select name
         from unnest(%(publications)s::text[]) name
         where not exists (select from pg_catalog.pg_publication where pubname = name)
       ) as missing,
       -- 'lost' says that changes are gone; no row, that there is no such slot.
       (
         select coalesce(wal_status, 'reserved')
         from pg_catalog.pg_replication_slots
         where slot_name = %(slot)s
       ) as slot,
       (
         select pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::int8
         from pg_catalog.pg_replication_slots
         where slot_name = %(slot)s
       ) as retained,
       coalesce((
         select (confirmed_flush_lsn - '0/0'::pg_catalog.pg_lsn)::int8
         from pg_catalog.pg_replication_slots
         where slot_name = %(slot)s
       ), 0) as confirmed
