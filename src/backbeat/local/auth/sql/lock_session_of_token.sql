-- The lock is the session's, not the token's: refreshing, reusing and signing out of one session wait for each other,
-- in the order in which deleting a session reaches its tokens.
select id, user_id, method, created_at
from auth.sessions
where id = (select session_id from auth.refresh_tokens where token_hash = %(token_hash)s)
for update
