-- Schema realtime: the table behind private channels and database broadcasts, and the functions that write to it
-- (server specification, section 12).
create schema if not exists realtime;
grant usage on schema realtime to anon, authenticated, service_role;
grant create, usage on schema realtime to supabase_realtime_admin;

create table if not exists realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default (now() at time zone 'utc'),
  inserted_at timestamp not null default (now() at time zone 'utc'),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);

create index if not exists messages_replay_index on realtime.messages (inserted_at desc, topic)
  where extension = 'broadcast' and private;

alter table realtime.messages owner to supabase_realtime_admin;
-- Without a policy nobody but service_role may receive or send on a private channel.
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;

create or replace function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')
$$;

create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$
declare
  message_id uuid := gen_random_uuid();
begin
  perform set_config('realtime.topic', send.topic, true);
  insert into realtime.messages (id, payload, event, topic, private, extension)
  values (
    message_id,
    case when jsonb_typeof(send.payload) = 'object' and not send.payload ? 'id'
      then send.payload || jsonb_build_object('id', message_id)
      else send.payload
    end,
    send.event, send.topic, send.private, 'broadcast'
  );
exception when others then
  -- A broadcast that cannot be stored must not undo the writer's own work.
  raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end $$;

create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true)
returns void language plpgsql as $$
begin
  perform set_config('realtime.topic', send_binary.topic, true);
  insert into realtime.messages (binary_payload, event, topic, private, extension)
  values (send_binary.payload, send_binary.event, send_binary.topic, send_binary.private, 'broadcast');
exception when others then
  raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end $$;

create or replace function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text,
  new record, old record, level text default 'ROW'
) returns void language plpgsql as $$
begin
  if level <> 'ROW' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') then
    raise exception 'Unexpected operation type: %', operation;
  end if;
  perform realtime.send(
    jsonb_build_object(
      'old_record', case when operation = 'INSERT' then 'null'::jsonb else to_jsonb(old) end,
      'record', case when operation = 'DELETE' then 'null'::jsonb else to_jsonb(new) end,
      'operation', operation, 'table', table_name, 'schema', table_schema
    ),
    event_name, topic_name
  );
exception when others then
  raise exception 'Failed to process the row: %', sqlerrm;
end $$;

-- Keeps one partition a day, from yesterday to `ahead` days from now, and drops what is older than `keep`.
-- Security definer, so that all partitions have one owner, who may drop them, whoever calls.
-- The advisory lock lets several servers call it at once.
create or replace function realtime.maintain_messages(ahead int default 3, keep interval default '72 hours')
returns void language plpgsql security definer set search_path = '' as $$
declare
  today date := (now() at time zone 'utc')::date;
  day date;
  name text;
begin
  perform pg_advisory_xact_lock(hashtextextended('realtime.maintain_messages', 0));
  for day in select today + d from generate_series(-1, ahead) d loop
    name := 'messages_' || to_char(day, 'YYYY_MM_DD');
    if to_regclass(format('realtime.%I', name)) is null then
      -- "Create table ... partition of" would wait for every transaction that uses the table, and let all others
      -- wait behind it; attaching does neither.
      execute format('create table realtime.%I (like realtime.messages including all)', name);
      execute format(
        'alter table realtime.messages attach partition realtime.%I for values from (%L) to (%L)',
        name, day, day + 1
      );
    end if;
  end loop;

  -- Dropping does both. Not for long: there is another time.
  perform set_config('lock_timeout', '1s', true);
  begin
    for name in
      select child.relname
      from pg_inherits
      join pg_class child on child.oid = inhrelid
      where inhparent = 'realtime.messages'::regclass and child.relname ~ '^messages_\d{4}_\d{2}_\d{2}$'
    loop
      if to_date(right(name, 10), 'YYYY_MM_DD') + 1 < (now() at time zone 'utc') - keep then
        execute format('drop table realtime.%I', name);
      end if;
    end loop;
  exception when lock_not_available then
    raise warning 'realtime.messages is in use: its old partitions are dropped another time';
  end;
end $$;

alter function realtime.topic() owner to supabase_realtime_admin;
alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;
alter function realtime.send_binary(bytea, text, text, boolean) owner to supabase_realtime_admin;
alter function realtime.broadcast_changes(text, text, text, text, text, record, record, text)
  owner to supabase_realtime_admin;
alter function realtime.maintain_messages(int, interval) owner to supabase_realtime_admin;
revoke execute on function realtime.maintain_messages(int, interval) from public;
grant execute on function realtime.maintain_messages(int, interval) to supabase_realtime_admin;
