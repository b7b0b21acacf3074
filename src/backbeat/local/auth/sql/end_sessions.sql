delete from auth.sessions
where user_id = %(user_id)s
  and case %(scope)s
    when 'local' then id = %(session_id)s
    when 'others' then id is distinct from %(session_id)s
    else true
  end
