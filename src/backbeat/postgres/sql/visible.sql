-- Which of some rows each of several viewers sees, asked as each of them. Generated for one table, lives as long as
-- the connection. Viewer k, with `claims[k]` and `subjects[k]`, is asked question `asked[k]`; question q is about the
-- rows `questions[ends[q - 1] + 1 : ends[q]]`, whose primary keys stand at the same places of `keys`. As far as that
-- can be told from its transaction, `xids[n]` wrote the version of row n in question.
-- `same` are the visible rows in that very version; `other` those in the version that `versions` wrote.
create or replace function pg_temp.{name}(
  role_name text, claims text[], subjects text[], asked int4[], questions int4[], ends int4[], keys text[], xids text[]
) returns table (viewer int4, same int4[], other int4[], versions text[], failure text)
language plpgsql volatile security invoker as $visible$
#variable_conflict use_variable
declare
  start int4;
  stop int4;
  {declarations}
begin
  perform
    -- A custom plan for few rows always looks cheaper than the generic one, and is made anew for each viewer.
    set_config(
      'plan_cache_mode', case when cardinality(questions) <= 20 * cardinality(ends) then 'force_generic_plan' else 'auto' end, true
    ),
    -- A plan from the days when the table was small would read all of it, for each viewer, until the next ANALYZE.
    set_config('enable_seqscan', 'off', true);
  for k in 1 .. cardinality(claims) loop
    viewer := k;
    failure := null;
    begin
      -- All of it again for each viewer: a function in a policy may have changed any of it.
      perform
        set_config('role', role_name, true),
        set_config('request.jwt.claims', claims[k], true),
        set_config('request.jwt.claim.sub', subjects[k], true),
        set_config('request.jwt.claim.role', role_name, true);
      {discard}
      start := coalesce(ends[asked[k] - 1], 0) + 1;
      stop := ends[asked[k]];
      select
        array_agg(seen.n) filter (where seen.version = xids[seen.n]),
        array_agg(seen.n) filter (where (seen.version = xids[seen.n]) is not true),
        array_agg(seen.version) filter (where (seen.version = xids[seen.n]) is not true)
      into same, other, versions
      from (
        select p.n, {version} as version
        from unnest(questions[start:stop], {keys}) as p (n, {names})
        join {table} t on {match}
      ) seen;
    exception
      -- Somebody alters a table: that is no answer, and worth waiting for.
      when lock_not_available then
        raise;
      -- An error in a policy is a no to the one who was asked, and to nobody else.
      when others then
        same := null;
        other := null;
        failure := sqlstate || ' ' || sqlerrm;
    end;
    if same is not null or other is not null or failure is not null then
      return next;
    end if;
  end loop;
  perform
    set_config('role', 'none', true),
    set_config('request.jwt.claims', '', true),
    set_config('request.jwt.claim.sub', '', true),
    set_config('request.jwt.claim.role', '', true);
end $visible$
