-- Whether a transaction that everybody sees has not told all sessions yet what it changed in the catalogue. Until then
-- the privileges they remember may be those of before; its lock goes last. Of each number only 32 bits are known.
-- Subtransactions have locks, too, and later numbers: only for the first one a snapshot tells whether it is over.
select exists (
  select
  from (
    select min(whole.xid) as xid
    from pg_locks l
    cross join (select pg_snapshot_xmax(pg_current_snapshot())::text::int8) as snapshot (top)
    cross join lateral (
      select top - mod(top - l.transactionid::text::int8 + 6442450944, 4294967296) + 2147483648
    ) as whole (xid)
    where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
    group by l.virtualtransaction
  ) as transaction
  where pg_visible_in_snapshot(transaction.xid::text::xid8, pg_current_snapshot())
)
