-- The ids would do; the time leaves all partitions but today's alone.
select extension
from realtime.messages
where id = any ($1::uuid[]) and inserted_at = (now() at time zone 'utc')
