-- The roles a token may name, and the owner of everything in schema realtime.
-- Two servers may start at once, and roles belong to the cluster, not to the database that is locked:
-- hence "create, and accept that it was there" instead of "look, then create".
do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('anon', 'nologin noinherit'),
      ('authenticated', 'nologin noinherit'),
      ('service_role', 'nologin noinherit bypassrls'),
      ('supabase_realtime_admin', 'nologin noinherit')
    ) as role (name, attributes)
  loop
    begin
      execute format('create role %I %s', wanted.name, wanted.attributes);
    exception when duplicate_object or unique_violation then
      null;
    end;
  end loop;
end $$;

grant anon, authenticated, service_role to supabase_realtime_admin;
