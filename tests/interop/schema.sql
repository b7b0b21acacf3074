-- What the scenarios of the interop ring play with.

-- Everybody reads it, and the old row is written to the log in full.
create table news (
  id bigint generated always as identity primary key,
  paper text not null,
  headline text
);
alter table news replica identity full;

-- Everybody reads what is theirs.
create table songs (
  id bigint generated always as identity primary key,
  owner uuid not null default auth.uid(),
  title text not null
);
alter table songs enable row level security;
create policy own on songs to authenticated using (owner = auth.uid()) with check (owner = auth.uid());

create table samples (
  id int primary key,
  big bigint,
  exact numeric,
  rough float8,
  yes boolean,
  words text,
  at timestamptz,
  document jsonb,
  numbers int[],
  names text[],
  nothing text
);

alter publication supabase_realtime add table news, songs, samples;

-- Who is signed in hears private topics that are open or quiet, and speaks in open ones.
create policy hear on realtime.messages for select to authenticated
  using (realtime.topic() like 'open-%' or realtime.topic() like 'quiet-%');
create policy speak on realtime.messages for insert to authenticated with check (realtime.topic() like 'open-%');

-- A song announces itself in the private topic of its owner.
create function announce_song() returns trigger language plpgsql security definer as $$
begin
  perform realtime.broadcast_changes(
    'open-' || coalesce(new.owner, old.owner), tg_op, tg_op, tg_table_name, tg_table_schema, new, old
  );
  return null;
end $$;
create trigger announce after insert or update or delete on songs for each row execute function announce_song();
