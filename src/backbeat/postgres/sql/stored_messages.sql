select id::text, event, payload::text, binary_payload
from realtime.messages
where topic = %(topic)s
  and extension = 'broadcast'
  and private
  and event is not null
  and (payload is not null or binary_payload is not null)
  and inserted_at >= timestamp 'epoch' + %(since)s * interval '1 millisecond'
  and inserted_at < (now() at time zone 'utc') + interval '1 minute'
order by inserted_at desc, id
limit %(limit)s
