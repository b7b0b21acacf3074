"""Where the functions run that give tokens to a blocking client."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.unit.sync.conftest import SOON, MakeClient

TOKEN = "header.claims.signature"


def test_a_function_that_blocks_holds_up_nothing_and_is_asked_once(make_client: MakeClient) -> None:
    """Three subscriptions wait for one answer, while the connection is alive."""
    asked: list[str] = []
    running, answer = threading.Event(), threading.Event()

    def token() -> str:
        asked.append(threading.current_thread().name)
        running.set()
        answer.wait(SOON)
        return TOKEN

    client = make_client(token=token)
    with ThreadPoolExecutor(3) as pool:
        joins = [pool.submit(client.channel(f"room-{n}", private=True).subscribe) for n in range(3)]
        assert running.wait(SOON)
        client.connect()
        assert client.ping() >= 0
        answer.set()
        assert [each.result(SOON).state for each in joins] == ["joined"] * 3
    (thread,) = asked
    assert thread.endswith(" helper")


def test_an_async_function_runs_on_the_loop_of_the_client(make_client: MakeClient) -> None:
    """So that it may use what belongs to that loop."""
    asked: list[str] = []

    async def token() -> str:
        asked.append(threading.current_thread().name)
        return TOKEN

    client = make_client(token=token)
    client.channel("room", private=True).subscribe()
    assert client.auth_state.fingerprint
    (thread,) = asked
    assert thread.endswith(" I/O")


def test_a_token_is_set_and_cleared_from_any_thread(make_client: MakeClient) -> None:
    """And the channel that it opened is left when it is cleared."""
    client = make_client()
    with ThreadPoolExecutor(1) as pool:
        state = pool.submit(client.set_auth, TOKEN).result(SOON)
        channel = client.channel("room", private=True).subscribe()
        assert (state.source, channel.state) == (client.auth_state.source, "joined")
        pool.submit(client.clear_auth).result(SOON)
    assert channel.state != "joined"
