-- What people expect of a project's database beyond realtime (HTTP surface specification, section 6).
do $$
begin
  create role supabase_admin nologin noinherit;
exception when duplicate_object or unique_violation then
  null;
end $$;

create schema if not exists extensions;
grant usage on schema extensions, public to anon, authenticated, service_role;

-- A table made with a bare CREATE TABLE is at once usable over REST; who sees which row is up to its policies.
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;

-- The embedded build ships without contrib: an extension is made where the server has it.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['uuid-ossp', 'pgcrypto'] loop
    if exists (select from pg_available_extensions where name = wanted) then
      execute format('create extension if not exists %I with schema extensions', wanted);
    end if;
  end loop;
  execute format('alter database %I set search_path = "$user", public, extensions', current_database());
end $$;
