-- Users made by plain SQL leave columns out or empty, and 'infinity' is a ban that Python cannot count to.
select
  u.id,
  coalesce(nullif(u.aud, ''), 'authenticated') as aud,
  coalesce(nullif(u.role, ''), 'authenticated') as role,
  coalesce(u.email, '') as email,
  u.email_confirmed_at,
  coalesce(u.phone, '') as phone,
  u.phone_confirmed_at,
  u.confirmed_at,
  nullif(u.email_change, '') as new_email,
  u.last_sign_in_at,
  case when jsonb_typeof(u.raw_app_meta_data) = 'object' then u.raw_app_meta_data else '{}' end as app_metadata,
  case when jsonb_typeof(u.raw_user_meta_data) = 'object' then u.raw_user_meta_data else '{}' end as user_metadata,
  coalesce(u.created_at, u.updated_at, 'epoch') as created_at,
  coalesce(u.updated_at, u.created_at, 'epoch') as updated_at,
  case when u.banned_until is not null then least(u.banned_until, '9000-01-01 00:00:00Z') end as banned_until,
  u.deleted_at,
  u.is_anonymous
from unnest(%(ids)s::uuid[]) with ordinality as wanted (id, position)
join auth.users u using (id)
order by wanted.position
