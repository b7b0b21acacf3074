"""The blocking client against the real server, in threads beside it."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from tests.integration.server.conftest import ERIC, MIKE, Running

from backbeat.client.events import Insert, PresenceJoin
from backbeat.errors import ClientClosed, Denied
from backbeat.sync import Broadcast, F, RealtimeClient

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[Any]

SOON = 10.0


@dataclass
class Song:
    """A row of `songs`."""

    id: int
    title: str


def client_of(server: Running, user: str = ERIC, **options: Any) -> RealtimeClient:
    """A client of the running server, with a user's token from a function."""
    return RealtimeClient(
        server.url, server.realtime.settings.keys.anon, token=lambda: server.token(user), **options
    )


def threads_of_clients() -> list[str]:
    """The names of the threads that clients have started."""
    return [thread.name for thread in threading.enumerate() if re.match(r"backbeat-\d", thread.name)]


async def test_a_script_sends_and_receives(server: Running) -> None:
    """Context managers, receipts, iterators and presence, and no thread is left behind."""

    def script() -> None:
        with client_of(server) as eric, client_of(server, MIKE) as mike:
            channel, room = mike.channel("open-1", private=True), mike.channel("room", presence=True)
            heard, seen = (
                channel.events(Broadcast("hi"), timeout=SOON),
                room.events(PresenceJoin, timeout=SOON),
            )
            with channel, room, eric.channel("room", presence_key="eric", ack=True) as sender:
                assert eric.channel("open-1", private=True).http_send("hi", {"n": 1}).via == "http"
                assert next(heard).payload == {"n": 1}
                assert sender.send("hi", {"n": 2}).acknowledged
                sender.presence.track({"plays": "bass"})
                assert next(seen).key == "eric"
                assert room.presence.state["eric"][0]["plays"] == "bass"
            assert list(heard) == []
        assert (eric.state, mike.state) == ("closed", "closed")

    await asyncio.to_thread(script)
    assert threads_of_clients() == []


async def test_row_changes_are_iterated_in_their_type(server: Running, database: Connection) -> None:
    """Each user gets their own rows, as soon as the subscription returns."""
    subscribed = threading.Event()

    def script() -> list[Song]:
        with client_of(server) as client:
            channel = client.channel("songs")
            songs = channel.changes("songs", filter=F("title") != "draft", model=Song, timeout=SOON)
            with channel:
                subscribed.set()
                change = next(songs)
                assert isinstance(change, Insert)
                return [change.new]

    running = asyncio.create_task(asyncio.to_thread(script))
    await asyncio.to_thread(subscribed.wait, SOON)
    for owner, title in ((MIKE, "not his"), (ERIC, "draft"), (ERIC, "one")):
        await database.execute("insert into songs (owner, title) values (%s, %s)", (owner, title))
    assert [song.title for song in await running] == ["one"]


async def test_a_refused_join_raises_where_it_was_asked_for(server: Running) -> None:
    """The exception is the asyncio client's; the channel is forgotten by its block."""

    def script() -> None:
        with client_of(server) as client:
            with (
                pytest.raises(Denied, match="SELECT policy") as refused,
                client.channel("closed", private=True),
            ):
                pass
            assert refused.value.topic == "closed"
            assert client.channels == ()

    await asyncio.to_thread(script)


async def test_eight_threads_send_at_once(server: Running) -> None:
    """Every broadcast arrives once, and those of a thread in its order."""
    threads, each = 8, 25

    def script() -> list[dict[str, int]]:
        with client_of(server) as sender, client_of(server, MIKE) as receiver:
            heard = receiver.channel("open-1", private=True).broadcasts("n", timeout=SOON)
            with (
                receiver.channel("open-1", private=True),
                sender.channel("open-1", private=True, ack=True) as channel,
                ThreadPoolExecutor(threads) as pool,
            ):
                start = threading.Barrier(threads)

                def send(thread: int) -> None:
                    start.wait()
                    for n in range(each):
                        channel.send("n", {"thread": thread, "n": n})

                list(pool.map(send, range(threads)))
                return [next(heard).payload for _ in range(threads * each)]

    payloads = await asyncio.to_thread(script)
    for thread in range(threads):
        assert [p["n"] for p in payloads if p["thread"] == thread] == list(range(each))


async def test_closing_in_another_thread_ends_what_waits(server: Running) -> None:
    """An iteration comes to its end, and a call that waits raises; neither hangs."""

    def script() -> None:
        client = client_of(server)
        channel = client.channel("open-1", private=True).subscribe()
        stream = channel.broadcasts()
        waiting = threading.Barrier(3)

        def iterate() -> list[Any]:
            waiting.wait()
            return list(stream)

        def join() -> None:
            waiting.wait()
            while True:
                client.channel("open-2", private=True).subscribe().unsubscribe()

        with ThreadPoolExecutor(2) as pool:
            iterating, joining = pool.submit(iterate), pool.submit(join)
            waiting.wait()
            client.close()
            assert iterating.result(SOON) == []
            with pytest.raises(ClientClosed):
                joining.result(SOON)

    await asyncio.to_thread(script)
    assert threads_of_clients() == []


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """A thread for each request, as Flask's and Django's development servers have."""


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the library
        """Say nothing."""


@contextmanager
def served(app: Callable[..., Iterable[bytes]]) -> Iterator[str]:
    """Serve a WSGI application."""
    with make_server("127.0.0.1", 0, app, ThreadingServer, Quiet) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


async def test_handlers_of_a_web_application_share_a_client(server: Running) -> None:
    """One client of the process sends what requests in many threads ask for."""
    requests = 12

    def script() -> list[int]:
        with client_of(server) as client, client_of(server, MIKE) as receiver:
            heard = receiver.channel("open-1", private=True).broadcasts("visit", timeout=SOON)

            def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
                channel = client.channel("open-1", private=True, ack=True).subscribe()
                receipt = channel.send("visit", {"n": int(environ["QUERY_STRING"])})
                start_response("200 OK", [("Content-Type", "application/json")])
                return [json.dumps({"acknowledged": receipt.acknowledged}).encode()]

            def visit(n: int) -> Any:
                with urllib.request.urlopen(f"{url}/?{n}", timeout=SOON) as answer:  # noqa: S310 - loopback
                    return json.load(answer)

            with (
                receiver.channel("open-1", private=True),
                served(app) as url,
                ThreadPoolExecutor(requests) as pool,
            ):
                assert list(pool.map(visit, range(requests))) == [{"acknowledged": True}] * requests
            assert client.stats().joins == 1
            return [next(heard).payload["n"] for _ in range(requests)]

    assert sorted(await asyncio.to_thread(script)) == list(range(requests))
