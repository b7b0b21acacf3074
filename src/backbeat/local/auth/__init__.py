"""`/auth/v1` of the local project: users, sessions and tokens for development.

A stand-in for GoTrue, the auth service of a Supabase project, so that unmodified clients can sign up, sign in
and refresh against a laptop (HTTP surface specification, section 4). It is **not** an auth service for
production: it sends no mail, limits nobody's tries, and knows passwords and anonymous users only.

`users`, `sessions`, `requests` and `errors` decide, without I/O; `passwords` keeps bcrypt off the event loop,
`store` speaks SQL, `service` puts them together, and `routes` is HTTP.
"""

from backbeat.local.auth.routes import Auth

__all__ = ["Auth"]
