insert into realtime.messages (id, topic, extension, inserted_at)
select id, $1, extension, now() at time zone 'utc'
from unnest($2::uuid[], $3::text[]) as probe (id, extension)
