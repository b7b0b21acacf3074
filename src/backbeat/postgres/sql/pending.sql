-- Whether some transactions are not over yet for others. The stream tells of a commit as soon as it is in the log,
-- which is a moment before anybody sees what was committed. Of each number only the lower 32 bits are known.
select exists (
  select
  from unnest(%(xids)s::int8[]) as given (xid)
  cross join (select pg_snapshot_xmax(pg_current_snapshot())::text::int8) as snapshot (top)
  cross join lateral (
    select top - mod(top - xid + 6442450944, 4294967296) + 2147483648
  ) as whole (xid)
  where pg_xact_status(whole.xid::text::xid8) = 'in progress'
)
