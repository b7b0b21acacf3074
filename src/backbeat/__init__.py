"""Authenticated realtime for Postgres: a server that speaks the Supabase Realtime protocol."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("backbeat")
