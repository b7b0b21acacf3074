insert into auth.users (
  id, aud, role, email, encrypted_password, email_confirmed_at, phone, phone_confirmed_at, email_change,
  last_sign_in_at, raw_app_meta_data, raw_user_meta_data, banned_until, created_at, updated_at, deleted_at,
  is_anonymous
) values (
  %(id)s, %(aud)s, %(role)s, %(email)s, %(password_hash)s, %(email_confirmed_at)s, %(phone)s,
  %(phone_confirmed_at)s, %(new_email)s, %(last_sign_in_at)s, %(app_metadata)s, %(user_metadata)s,
  %(banned_until)s, %(created_at)s, %(updated_at)s, %(deleted_at)s, %(is_anonymous)s
)
