"""Authenticated realtime for Postgres."""
