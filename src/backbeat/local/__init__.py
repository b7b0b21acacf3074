"""A project on a laptop: an embedded Postgres, and development stand-ins for the auth and REST services."""
