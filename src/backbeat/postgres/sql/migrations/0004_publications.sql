-- What the replication stream carries: user tables as their owner adds them, and every stored message.
do $$
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
    if current_setting('server_version_num')::int >= 180000 then
      -- Before that, no generated column can be published.
      alter publication supabase_realtime set (publish_generated_columns = stored);
    end if;
  end if;
  if not exists (select from pg_publication where pubname = 'supabase_realtime_messages_publication') then
    -- Partitions come and go by the day; the stream sees one table.
    create publication supabase_realtime_messages_publication for table realtime.messages
      with (publish = 'insert', publish_via_partition_root = true);
  end if;
end $$;
