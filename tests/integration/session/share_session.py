"""A program that shares a session with others: says what happens to it, until its user signs out.

`python share_session.py <project URL> <API key> <session file>`
"""

from __future__ import annotations

import asyncio
import sys

from backbeat.session import AuthChange, AuthContext, FileStore


async def main(url: str, apikey: str, path: str) -> None:
    """Print each event, and after each let many ask for the token at once."""
    async with AuthContext(url, apikey, store=FileStore(path, interval=0.02)) as auth:
        async for event in auth.events():
            print(event.kind.value, flush=True)
            if event.kind is AuthChange.SIGNED_OUT:
                return
            tokens = await asyncio.gather(*(auth.token() for _ in range(25)))
            assert len(set(tokens)) == 1


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
