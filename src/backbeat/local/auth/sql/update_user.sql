update auth.users set
  aud = %(aud)s,
  role = %(role)s,
  email = %(email)s,
  email_confirmed_at = %(email_confirmed_at)s,
  phone = %(phone)s,
  phone_confirmed_at = %(phone_confirmed_at)s,
  email_change = %(new_email)s,
  last_sign_in_at = %(last_sign_in_at)s,
  raw_app_meta_data = %(app_metadata)s,
  raw_user_meta_data = %(user_metadata)s,
  banned_until = %(banned_until)s,
  updated_at = %(updated_at)s,
  deleted_at = %(deleted_at)s,
  is_anonymous = %(is_anonymous)s
where id = %(id)s
