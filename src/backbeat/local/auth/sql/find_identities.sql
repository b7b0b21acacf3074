select
  id as identity_id, provider_id as id, user_id, identity_data, provider,
  last_sign_in_at, created_at, updated_at, email
from auth.identities
where user_id = any (%(ids)s::uuid[])
order by created_at, id
