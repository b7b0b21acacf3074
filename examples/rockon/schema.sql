-- The band app: bands and what they play. Run as `postgres` at every start: everything here can be run again.
--
-- Who may do what is said in three sentences. A member of a band sees and changes everything of that band. A leader
-- decides who is a member. Everybody else sees nothing.

-- Not exposed over REST: nothing in here can be called by name from outside.
create schema if not exists rockon;
grant usage on schema rockon to authenticated;

-- Tables ------------------------------------------------------------------------------------------------------------

create table if not exists public.bands (
  id uuid primary key default gen_random_uuid(),
  name text not null check (name <> ''),
  created_by uuid default auth.uid() references auth.users (id) on delete set null,
  created_at timestamptz not null default now(),
  updated_by uuid references auth.users (id) on delete set null,
  updated_at timestamptz not null default now()
);

create table if not exists public.band_members (
  band_id uuid not null references public.bands (id) on delete cascade,
  user_id uuid not null references auth.users (id) on delete cascade,
  display_name text not null check (display_name <> ''),
  instrument text,
  role text not null default 'member' check (role in ('leader', 'member')),
  primary key (band_id, user_id)
);
create index if not exists band_members_user_id on public.band_members (user_id);

create table if not exists public.songs (
  id uuid primary key default gen_random_uuid(),
  band_id uuid not null references public.bands (id) on delete cascade,
  title text not null check (title <> ''),
  artist text,
  key text,
  bpm integer check (bpm between 20 and 400),
  created_by uuid default auth.uid() references auth.users (id) on delete set null,
  created_at timestamptz not null default now(),
  updated_by uuid references auth.users (id) on delete set null,
  updated_at timestamptz not null default now()
);

-- The songs of a setlist are an array in playing order, not a table of their own: one edit of a setlist is then one
-- row and one change event. An id of a song that is gone is skipped by whoever shows the list.
create table if not exists public.setlists (
  id uuid primary key default gen_random_uuid(),
  band_id uuid not null references public.bands (id) on delete cascade,
  title text not null check (title <> ''),
  notes text,
  song_ids uuid[] not null default '{}',
  created_by uuid default auth.uid() references auth.users (id) on delete set null,
  created_at timestamptz not null default now(),
  updated_by uuid references auth.users (id) on delete set null,
  updated_at timestamptz not null default now()
);

create table if not exists public.shows (
  id uuid primary key default gen_random_uuid(),
  band_id uuid not null references public.bands (id) on delete cascade,
  venue text not null check (venue <> ''),
  city text,
  date date not null,
  doors time,
  created_by uuid default auth.uid() references auth.users (id) on delete set null,
  created_at timestamptz not null default now(),
  updated_by uuid references auth.users (id) on delete set null,
  updated_at timestamptz not null default now()
);

create table if not exists public.practice_sessions (
  id uuid primary key default gen_random_uuid(),
  band_id uuid not null references public.bands (id) on delete cascade,
  place text not null check (place <> ''),
  focus text,
  date date not null,
  starts time,
  created_by uuid default auth.uid() references auth.users (id) on delete set null,
  created_at timestamptz not null default now(),
  updated_by uuid references auth.users (id) on delete set null,
  updated_at timestamptz not null default now()
);

-- Helpers -----------------------------------------------------------------------------------------------------------

-- Security definer, because a policy on band_members that reads band_members would recurse. The empty search_path
-- keeps a caller from slipping in a band_members of their own.
create or replace function rockon.is_member(band uuid) returns boolean
language sql stable security definer set search_path = '' as $$
  select exists (select from public.band_members where band_id = band and user_id = auth.uid());
$$;

create or replace function rockon.is_leader(band uuid) returns boolean
language sql stable security definer set search_path = '' as $$
  select exists (
    select from public.band_members where band_id = band and user_id = auth.uid() and role = 'leader'
  );
$$;

-- The band of a channel named `band-<id>`; null for every other name, and null is nobody's band.
create or replace function rockon.band_of(topic text) returns uuid
language sql immutable set search_path = '' as $$
  select case
    when topic ~ '^band-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then substr(topic, 6)::uuid
  end;
$$;

revoke execute on function rockon.is_member(uuid), rockon.is_leader(uuid), rockon.band_of(text) from public;
grant execute on function rockon.is_member(uuid), rockon.is_leader(uuid), rockon.band_of(text) to authenticated;

-- Who wrote a row is taken from the token, never from the request body: the page prints these names. Where SQL writes,
-- as the seed below does, or the foreign key that forgets a deleted user, there is no token and no last author.
create or replace function rockon.stamp() returns trigger
language plpgsql set search_path = '' as $$
declare
  author constant uuid := auth.uid();
begin
  if author is not null then
    new.created_by := case tg_op when 'INSERT' then author else old.created_by end;
  end if;
  new.updated_by := author;
  new.updated_at := now();
  return new;
end;
$$;

-- Whoever starts a band leads it, or nobody could ever add a member.
create or replace function rockon.found_band() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into public.band_members (band_id, user_id, display_name, role)
  select new.id, u.id, coalesce(nullif(u.raw_user_meta_data ->> 'name', ''), split_part(u.email, '@', 1)), 'leader'
  from auth.users u
  where u.id = new.created_by
  on conflict do nothing;
  return null;
end;
$$;

create or replace trigger stamp before insert or update on public.bands
  for each row execute function rockon.stamp();
create or replace trigger found_band after insert on public.bands
  for each row execute function rockon.found_band();

-- Policies ----------------------------------------------------------------------------------------------------------

alter table public.bands enable row level security;
alter table public.band_members enable row level security;
grant select, insert, update, delete on public.bands, public.band_members to authenticated;

-- `or created_by`: INSERT … RETURNING checks this policy before found_band has made the founder a member.
drop policy if exists "members see their bands" on public.bands;
create policy "members see their bands" on public.bands for select to authenticated
  using (rockon.is_member(id) or created_by = (select auth.uid()));
drop policy if exists "anybody may found a band" on public.bands;
create policy "anybody may found a band" on public.bands for insert to authenticated
  with check (created_by = (select auth.uid()));
drop policy if exists "members change their bands" on public.bands;
create policy "members change their bands" on public.bands for update to authenticated
  using (rockon.is_member(id)) with check (rockon.is_member(id));
drop policy if exists "leaders dissolve their bands" on public.bands;
create policy "leaders dissolve their bands" on public.bands for delete to authenticated
  using (rockon.is_leader(id));

drop policy if exists "members see each other" on public.band_members;
create policy "members see each other" on public.band_members for select to authenticated
  using (rockon.is_member(band_id));
drop policy if exists "leaders decide who is a member" on public.band_members;
create policy "leaders decide who is a member" on public.band_members for all to authenticated
  using (rockon.is_leader(band_id)) with check (rockon.is_leader(band_id));
drop policy if exists "members may leave" on public.band_members;
create policy "members may leave" on public.band_members for delete to authenticated
  using (user_id = (select auth.uid()));

-- The four lists are alike. The replica identity stays the primary key: a DELETE event then says the id and nothing
-- else, to whoever subscribed. Row level security cannot be asked about a row that is gone, so with the identity
-- FULL a filter on band_id would match for strangers too. The page subscribes to DELETE without a filter and ignores
-- ids it does not show.
do $$
declare
  list text;
begin
  foreach list in array array['songs', 'setlists', 'shows', 'practice_sessions'] loop
    execute format('create index if not exists %I on public.%I (band_id)', list || '_band_id', list);
    execute format(
      'create or replace trigger stamp before insert or update on public.%I
         for each row execute function rockon.stamp()', list);
    execute format('alter table public.%I enable row level security', list);
    execute format('grant select, insert, update, delete on public.%I to authenticated', list);
    execute format('drop policy if exists "members see and change everything" on public.%I', list);
    execute format(
      'create policy "members see and change everything" on public.%I for all to authenticated
         using (rockon.is_member(band_id)) with check (rockon.is_member(band_id))', list);
    if not exists (
      select from pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = list
    ) then
      execute format('alter publication supabase_realtime add table public.%I', list);
    end if;
  end loop;
end;
$$;

-- The private channel `band-<id>` (who is online, who removed what): members listen, members speak.
drop policy if exists "rockon: members listen" on realtime.messages;
create policy "rockon: members listen" on realtime.messages for select to authenticated
  using (rockon.is_member(rockon.band_of((select realtime.topic()))));
drop policy if exists "rockon: members speak" on realtime.messages;
create policy "rockon: members speak" on realtime.messages for insert to authenticated
  with check (rockon.is_member(rockon.band_of((select realtime.topic()))));

-- The demo ----------------------------------------------------------------------------------------------------------

-- Three people, password test123. Eric and Mike share a band; Olga has one of her own and must never see theirs.
insert into auth.users (
  id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data,
  created_at, updated_at
)
select
  id, 'authenticated', 'authenticated', lower(name) || '@ipodshuffle.com',
  '$2b$10$wRYiBupNVwtDGMKBCtXy5OH7C3IMsjR..ONqQmGvYAcnBvxO6emCC', now(),
  '{"provider": "email", "providers": ["email"]}', jsonb_build_object('name', name), now(), now()
from (values
  ('e21c0000-0000-4000-8000-000000000001'::uuid, 'Eric'),
  ('313e0000-0000-4000-8000-000000000002', 'Mike'),
  ('01ca0000-0000-4000-8000-000000000003', 'Olga')
) as people (id, name)
on conflict do nothing;

-- A band brings its demo rows along when it is made, and only then: a song deleted in the page stays deleted at the
-- next start.
with band as (
  insert into public.bands (id, name, created_by)
  values (
    'ba2d0000-0000-4000-8000-000000000001', 'The iPod Shuffle', 'e21c0000-0000-4000-8000-000000000001'
  )
  on conflict do nothing
  returning id, created_by as eric
),
members as (
  insert into public.band_members (band_id, user_id, display_name, instrument, role)
  select band.id, m.user_id, m.display_name, m.instrument, m.role
  from band, (values
    ('e21c0000-0000-4000-8000-000000000001'::uuid, 'Eric', 'Guitar, vocals', 'leader'),
    ('313e0000-0000-4000-8000-000000000002', 'Mike', 'Drums', 'member')
  ) as m (user_id, display_name, instrument, role)
),
songs as (
  insert into public.songs (id, band_id, title, artist, key, bpm, created_by)
  select s.id, band.id, s.title, s.artist, s.key, s.bpm, eric
  from band, (values
    ('50260000-0000-4000-8000-000000000001'::uuid, 'Battery at Four Percent', 'The iPod Shuffle', 'E', 168),
    ('50260000-0000-4000-8000-000000000002', 'No Screen, No Problem', 'The iPod Shuffle', 'Am', 122),
    ('50260000-0000-4000-8000-000000000003', 'House of the Rising Sun', 'Traditional', 'Am', 76),
    ('50260000-0000-4000-8000-000000000004', 'Clip It to My Sleeve', 'The iPod Shuffle', 'D', 140),
    ('50260000-0000-4000-8000-000000000005', 'Whiskey in the Jar', 'Traditional', 'G', 112)
  ) as s (id, title, artist, key, bpm)
),
setlists as (
  insert into public.setlists (id, band_id, title, notes, song_ids, created_by)
  select
    '5e710000-0000-4000-8000-000000000001', band.id, 'Friday night', 'Straight into the last two, no talking.',
    array[
      '50260000-0000-4000-8000-000000000002', '50260000-0000-4000-8000-000000000003',
      '50260000-0000-4000-8000-000000000001', '50260000-0000-4000-8000-000000000004'
    ]::uuid[],
    eric
  from band
),
shows as (
  insert into public.shows (id, band_id, venue, city, date, doors, created_by)
  select
    '50f00000-0000-4000-8000-000000000001', band.id, 'The Broken Jukebox', 'Leipzig',
    current_date + 12, '20:00', eric
  from band
)
insert into public.practice_sessions (id, band_id, place, focus, date, starts, created_by)
select
  '92ac0000-0000-4000-8000-000000000001', band.id, 'Mike''s garage', 'Tighten the endings',
  current_date + 3, '19:30', eric
from band;

with band as (
  insert into public.bands (id, name, created_by)
  values (
    'ba2d0000-0000-4000-8000-000000000002', 'Olga and the Walkmen', '01ca0000-0000-4000-8000-000000000003'
  )
  on conflict do nothing
  returning id, created_by as olga
),
members as (
  insert into public.band_members (band_id, user_id, display_name, instrument, role)
  select band.id, olga, 'Olga', 'Bass', 'leader' from band
),
songs as (
  insert into public.songs (id, band_id, title, artist, key, bpm, created_by)
  select '50260000-0000-4000-8000-000000000006', band.id, 'Auto-Reverse', 'Olga and the Walkmen', 'Em', 96, olga
  from band
)
insert into public.shows (id, band_id, venue, city, date, doors, created_by)
select
  '50f00000-0000-4000-8000-000000000002', band.id, 'Tape Deck Bar', 'Halle', current_date + 20, '21:00', olga
from band;
