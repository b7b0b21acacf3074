select id, encrypted_password
from auth.users
where lower(email) = %(email)s and email <> '' and not is_sso_user and deleted_at is null
