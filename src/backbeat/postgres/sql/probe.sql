-- What is asked about a private channel (server specification, section 6.3), prepared once for each connection:
-- planning takes three quarters of the time otherwise.

-- Rows of the topic, one for each extension, for the SELECT policies to judge.
prepare backbeat_insert_probes (text, uuid[], text[]) as
insert into realtime.messages (id, topic, extension, inserted_at)
select id, $1, extension, now() at time zone 'utc'
from unnest($2, $3) as probe (id, extension);

-- What policies know about the caller.
prepare backbeat_become_caller (text, text, text, text, text) as
select set_config('role', $1, true),
       set_config('realtime.topic', $2, true),
       set_config('request.jwt.claims', $3, true),
       set_config('request.jwt.claim.sub', $4, true),
       set_config('request.jwt.claim.role', $1, true),
       set_config('request.headers', $5, true);

-- The ids would do; the time leaves all partitions but today's alone.
prepare backbeat_select_probes (uuid[]) as
select extension
from realtime.messages
where id = any ($1) and inserted_at = (now() at time zone 'utc');

-- For the INSERT policies.
prepare backbeat_insert_probe (text, text) as
insert into realtime.messages (topic, extension) values ($1, $2);
