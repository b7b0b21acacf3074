select id::text, event, payload::text, binary_payload
from realtime.messages
where topic = %(topic)s
  and extension = 'broadcast'
  and private
  and event is not null
  and (payload is not null or binary_payload is not null)
  and inserted_at >= timestamp 'epoch' + %(since)s * interval '1 millisecond'
  and inserted_at < (now() at time zone 'utc') + interval '1 minute'
-- Those of one transaction have one time; where they lie in the table is the order they were written in.
order by inserted_at desc, ctid desc
limit %(limit)s
