"""A session file that Backbeat and a Supabase client use in turn."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from tests.interop.conftest import NODE, Stage

from backbeat import AuthContext, FileStore
from backbeat.session import AuthChange, Refreshed

PATIENCE = 20.0


async def test_supabase_js_goes_on_with_our_session_and_we_with_theirs(stage: Stage, tmp_path: Path) -> None:
    """It restores what we wrote and refreshes it; we notice, and refresh what it wrote."""
    path = tmp_path / "session.json"
    async with AuthContext(stage.url, stage.key, store=FileStore(path, interval=0.02)) as auth:
        ours = await auth.sign_up("ada@example.com", "correct horse battery")
        assert ours is not None
        async with aclosing(auth.events()) as events:
            await anext(events)
            await asyncio.to_thread(
                stage.play, NODE, "session.from_a_file", file=str(path), user=ours.user_id
            )
            async with asyncio.timeout(PATIENCE):
                event = await anext(events)
        assert event.kind is AuthChange.TOKEN_REFRESHED
        assert event.session is not None
        assert event.session.refresh_token != ours.refresh_token
        assert isinstance(await auth.refresh(force=True), Refreshed)
