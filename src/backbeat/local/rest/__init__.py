"""`/rest/v1` of a local project: a development stand-in for PostgREST."""

from backbeat.local.rest.routes import Rest

__all__ = ["Rest"]
