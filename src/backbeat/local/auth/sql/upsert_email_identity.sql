insert into auth.identities (provider_id, provider, user_id, identity_data, last_sign_in_at, created_at, updated_at)
values (%(user_id)s::text, 'email', %(user_id)s, %(identity_data)s, %(now)s, %(now)s, %(now)s)
on conflict (provider_id, provider) do update
set identity_data = excluded.identity_data, updated_at = excluded.updated_at
