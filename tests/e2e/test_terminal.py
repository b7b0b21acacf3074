"""The band app in a browser and in a terminal: Eric at the page, Mike at the keyboard."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.e2e.conftest import ROOT, BandApp, Terminal, Visitor

BAND = "ba2d0000-0000-4000-8000-000000000001"
OTHER_BAND = "ba2d0000-0000-4000-8000-000000000003"
MIKE = "313e0000-0000-4000-8000-000000000002"
LISTS = ("songs", "setlists", "shows", "practice_sessions")

Visit = Callable[[str], Visitor]
Say = Callable[[str], None]


@pytest.fixture
def eric(band_app: BandApp, visit: Visit) -> Visitor:
    """Eric, signed in at the page."""
    eric = visit(band_app.url)
    eric.sign_in("eric")
    return eric


@pytest.fixture
def mike(band_app: BandApp, tmp_path: Path) -> Iterator[Terminal]:
    """Mike, signed in at the terminal."""
    with Terminal("mike", band_app.project_url, tmp_path) as mike:
        mike.sign_in("test123")
        yield mike


@pytest.fixture
def say(capsys: Any) -> Say:
    """Print a number that is worth knowing, also when the test passes."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end=" ")

    return say


def exchange(eric: Visitor, mike: Terminal, take: str) -> str:
    """A song each way: it arrives, with a toast, and with none at the one who added it.

    Returns:
        How long that took.
    """
    typed = time.time() * 1000
    mike.type(f"add From the terminal, {take}")
    eric.toast(f'Mike added "From the terminal, {take}"').wait_for()
    to_page = time.time() * 1000 - typed
    eric.song(f"From the terminal, {take}").wait_for()

    saved = eric.add_song(f"From the page, {take}")
    line = mike.says(f'🔔 Eric added "From the page, {take}"')
    to_terminal = mike.heard_at[line] * 1000 - saved

    mike.type("songs")
    for sender in ("page", "terminal"):
        mike.says(f"♪ From the {sender}, {take}", since=line)
    assert not any("Mike added" in line for line in mike.lines)
    assert eric.page.get_by_test_id("toast").filter(has_text="Eric added").count() == 0
    return f"{take}: {to_page:.0f} ms to the page, {to_terminal:.0f} ms to the terminal"


def test_what_realtime_does_is_said_in_order(mike: Terminal) -> None:
    """Signed in, started, four lists of the band subscribed, connected; and nobody says "restored"."""
    lines = [
        "🔐 Realtime auth configured with user JWT",
        "🔌 Starting real-time WebSocket sync...",
        "🔌 RealtimeManager initialized - using main Supabase client",
        "✅ Real-time sync connected",
    ]
    numbers = [mike.says(line) for line in lines]
    assert numbers == sorted(numbers)
    subscribed = [mike.says(f"✅ Subscribed to {table}-{BAND}") for table in LISTS]
    assert numbers[2] < min(subscribed) < max(subscribed) < numbers[3]
    assert mike.output.count("✅ Subscribed") == len(LISTS)
    assert "restored" not in mike.output


def test_both_see_what_the_other_does(eric: Visitor, mike: Terminal, say: Say) -> None:
    """Songs that are added, renamed and removed at one appear, change and vanish at the other."""
    mike.says("online: Eric, Mike")
    eric.page.get_by_test_id("online-mike").wait_for()
    say(exchange(eric, mike, "take 1"))
    assert "📡 Received INSERT event\n" in mike.lines

    mike.type("rename From the terminal to Renamed in the terminal")
    eric.toast('Mike updated "Renamed in the terminal"').wait_for()
    eric.song("Renamed in the terminal").get_by_test_id("delete").click()
    mike.says('🔔 Eric removed "Renamed in the terminal"')
    mike.type("remove From the page")
    eric.toast('Mike removed "From the page, take 1"').wait_for()
    eric.song("From the page").wait_for(state="detached")

    mike.stop()
    eric.page.get_by_test_id("offline-mike").wait_for()
    assert eric.complaints == []


def test_it_goes_on_after_a_page_refresh_and_after_new_tokens(
    eric: Visitor, mike: Terminal, say: Say
) -> None:
    """The page is loaded again, and both get new tokens: changes arrive as before, both ways."""
    eric.page.reload()
    eric.live()
    say(exchange(eric, mike, "after a refresh of the page"))

    eric.page.evaluate("window.rockon.supabase.auth.refreshSession()")
    mike.type("refresh")
    mike.says("🔐 Realtime auth refreshed with the new user JWT")
    eric.page.wait_for_function("window.rockon.log.some(({text}) => text.includes('auth refreshed'))")
    say(exchange(eric, mike, "with new tokens"))
    assert mike.output.count("✅ Subscribed") == len(LISTS)


def test_the_terminal_finds_its_session_again(
    eric: Visitor, mike: Terminal, band_app: BandApp, tmp_path: Path, say: Say
) -> None:
    """Left and started again, it asks for no password, says "restored", and hears everything."""
    mike.type("quit")
    mike.stop()
    with Terminal("mike", band_app.project_url, tmp_path) as again:
        again.says("connection: live")
        assert "🔐 Realtime auth restored from session" in again.output
        assert "configured" not in again.output
        assert "Password" not in again.output
        say(exchange(eric, again, "after a restart of the terminal"))
        again.type("out")
        again.says("Password of mike")
    eric.page.get_by_test_id("offline-mike").wait_for()


def test_a_new_band_adds_four_channels_and_a_lost_one_takes_them_away(
    mike: Terminal, band_app: BandApp
) -> None:
    """Somebody lets Mike into another band and out again: only the difference is subscribed and left."""
    with psycopg.connect(band_app.database_url, autocommit=True) as database:
        database.execute("insert into bands (id, name) values (%s, 'Understudies')", (OTHER_BAND,))
        database.execute("insert into band_members values (%s, %s, 'Mike')", (OTHER_BAND, MIKE))
        before = len(mike.lines)
        mike.type("bands")
        subscribed = [mike.says(f"✅ Subscribed to {table}-{OTHER_BAND}") for table in LISTS]
        assert max(subscribed) < mike.says("✅ Real-time sync connected", since=before)
        assert mike.output.count("✅ Subscribed") == 2 * len(LISTS)
        database.execute("insert into songs (band_id, title) values (%s, 'Walk')", (OTHER_BAND,))
        line = mike.says('🔔 Somebody added "Walk"')

        database.execute("delete from band_members where band_id = %s", (OTHER_BAND,))
        mike.type("bands")
        mike.type("songs")
        mike.says(r"^\d+ songs", since=line)
        database.execute("insert into songs (band_id, title) values (%s, 'Secret')", (OTHER_BAND,))
        # Changes arrive in the order of their commits: after this one, the other would have come.
        database.execute("insert into songs (band_id, title) values (%s, 'Open')", (BAND,))
        mike.says('🔔 Somebody added "Open"')
        mike.type("songs")
        mike.says("♪ Open", since=line)
        for title in ("♪ Walk", "Secret"):
            assert title not in mike.output


def test_a_wrong_password_is_said_and_asked_for_again(band_app: BandApp, tmp_path: Path) -> None:
    """It says why, opens no socket, and the right one is taken."""
    with Terminal("mike", band_app.project_url, tmp_path) as mike:
        mike.type("test321")
        mike.says("❌ .*[Ii]nvalid")
        assert "Starting" not in mike.output
        mike.sign_in("test123")


def test_both_survive_a_restart_of_the_server(
    eric: Visitor, mike: Terminal, band_app: BandApp, say: Say
) -> None:
    """Server and database go and come back; what happened meanwhile is read, and nobody is asked anything."""
    band_app.stop()
    down = mike.says("connection: offline")
    mike.says(f"❌ Channel error for songs-{BAND}: .+")
    band_app.start()
    with psycopg.connect(band_app.database_url, autocommit=True) as database:
        database.execute("insert into songs (band_id, title) values (%s, 'Meanwhile')", (BAND,))
    mike.says("✅ Real-time sync connected", since=down, timeout=30)
    eric.live()
    eric.song("Meanwhile").wait_for()
    line = mike.says("connection: live", since=down)
    say(exchange(eric, mike, "after a restart of the server"))
    mike.says("♪ Meanwhile", since=line)


def test_started_without_a_server_it_waits_for_it(mike: Terminal, band_app: BandApp) -> None:
    """It says why it cannot start, with a traceback, keeps the session, and starts when there is one."""
    mike.type("quit")
    mike.stop()
    band_app.stop()
    mike.start(ready="connection: offline")
    mike.says("❌ Failed to start real-time sync: RestError: The project did not answer")
    mike.says("^Traceback ")
    assert "Subscribed" not in mike.output
    band_app.start()
    mike.says("connection: live", timeout=30)
    assert "Password" not in mike.output


def test_on_a_terminal_the_songs_are_kept_current(mike: Terminal, band_app: BandApp, tmp_path: Path) -> None:
    """With a terminal of its own the program draws the whole screen, and draws it again when a song comes."""
    mike.stop()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 34, 110, 0, 0))
    seen = bytearray()
    program = subprocess.Popen(
        mike.command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    try:
        watch = threading.Timer(30, program.kill)
        watch.start()
        read_until(ours, seen, "Real-time sync connected")
        os.write(ours, b"add Aardvarkkk\x7f\x7f\n")
        read_until(ours, seen, "  Aardvark ")
        os.write(ours, b"quit\n")
        assert program.wait(10) == 0
    finally:
        watch.cancel()
        program.send_signal(signal.SIGKILL)
        program.wait()
        os.close(ours)


def read_until(terminal: int, seen: bytearray, text: str) -> None:
    """Read what is drawn until a text is there."""
    while text.encode() not in seen:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # It is gone.
            raise AssertionError(seen.decode(errors="replace")) from None
