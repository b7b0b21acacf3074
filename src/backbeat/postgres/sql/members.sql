-- Which users stand in a table that policies look into, beside each of some values of rows. `given` has the values
-- with their numbers; the limit is on all together.
select found.n, array_agg(found.id)
from (
  select given.n, t.{user}::text as id
  from {given}
  join {table} t on {match}
  where t.{user} is not null
  limit {most}
) found
group by found.n
