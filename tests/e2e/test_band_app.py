"""The band app in a real browser: two members, an outsider, refreshes and a restart."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from tests.e2e.conftest import BandApp, Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

BAND = "ba2d0000-0000-4000-8000-000000000001"
TOPICS = [f"{table}-{BAND}" for table in ("songs", "setlists", "shows", "practice_sessions")]
ROUNDS = 20

Visit = Callable[[str], Visitor]

LISTEN_AS_OUTSIDER = """async ([topics, ownBand]) => {
  const heard = window.heard = [];
  const listen = (table, filter, name) => new Promise((resolve) => {
    window.rockon.supabase.channel(name)
      .on('postgres_changes', {event: '*', schema: 'public', table, filter}, (change) => heard.push(change))
      .on('system', {}, (message) => message.extension === 'postgres_changes' && resolve(message))
      .subscribe();
  });
  const answers = await Promise.all(topics.map((topic) => {
    const [table, ...band] = topic.split('-');
    return listen(table, `band_id=eq.${band.join('-')}`, `outside-${topic}`);
  }));
  answers.push(await listen('songs', `band_id=eq.${ownBand}`, 'own-songs'));
  return answers;
}"""


def joins(visitor: Visitor) -> list[list[Any]]:
    """The join messages a page has sent."""
    messages = [json.loads(frame) for frame in visitor.sent]
    return [message for message in messages if message[3] == "phx_join"]


def test_a_fresh_sign_in_subscribes_to_all_four_lists(band_app: BandApp, visit: Visit) -> None:
    """Four channels are subscribed with the user's token, and the console is silent."""
    eric = visit(band_app.url)
    eric.sign_in("eric")
    log = eric.log()
    assert any("Realtime auth configured with user JWT" in line for line in log)
    assert not any("restored" in line for line in log)
    for topic in TOPICS:
        assert any(f"Subscribed to {topic}" in line for line in log)
    assert eric.complaints == []


def test_a_refresh_restores_the_session_before_the_first_join(band_app: BandApp, visit: Visit) -> None:
    """The log says "restored", and the first join already carries the user's token."""
    eric = visit(band_app.url)
    eric.sign_in("eric")
    for hard in (False, True):
        eric.sent.clear()
        reload(eric.page, hard=hard)
        eric.live()
        log = eric.log()
        assert any("Realtime auth restored from session" in line for line in log)
        assert not any("configured" in line for line in log)
        tokens = {message[4].get("access_token") for message in joins(eric)}
        assert len(tokens) == 1
        (token,) = tokens
        assert token == eric.page.evaluate(
            "window.rockon.supabase.auth.getSession().then(({data}) => data.session.access_token)"
        )
    assert eric.complaints == []


def reload(page: Page, *, hard: bool) -> None:
    """Reload a page, past its cache if need be."""
    if hard:
        page.context.new_cdp_session(page).send("Page.reload", {"ignoreCache": True})
        page.wait_for_load_state()
    else:
        page.reload()


def test_members_see_each_others_changes(band_app: BandApp, visit: Visit, capsys: Any) -> None:
    """A song that Eric adds, edits and deletes appears, changes and vanishes at Mike, with toasts."""
    eric, mike = visit(band_app.url), visit(band_app.url)
    eric.sign_in("eric")
    mike.sign_in("mike")
    mike.page.get_by_test_id("online-eric").wait_for()

    eric.add_song("New Song")
    mike.toast('Eric added "New Song"').wait_for(timeout=2_000)
    assert mike.song("New Song").is_visible()

    eric.song("New Song").get_by_test_id("edit").click()
    form = eric.page.get_by_test_id("form-songs")
    form.locator('[name="title"]').fill("Better Song")
    form.get_by_test_id("save").click()
    mike.song("Better Song").wait_for(timeout=2_000)

    eric.song("Better Song").get_by_test_id("delete").click()
    mike.song("Better Song").wait_for(state="detached", timeout=2_000)

    delays = [delay_of_a_song(eric, mike, f"Take {number}") for number in range(ROUNDS)]
    assert max(delays) < 2_000
    with capsys.disabled():
        print(f"\n  a song at the other member: median {statistics.median(delays):.0f} ms of {ROUNDS}, "
              f"slowest {max(delays):.0f} ms", end=" ")  # fmt: skip
    assert eric.complaints == mike.complaints == []


def delay_of_a_song(sender: Visitor, receiver: Visitor, title: str) -> float:
    """Milliseconds from the click that saves a song to its row at the other member."""
    receiver.page.evaluate(
        """title => { window.appeared = new Promise((resolve) => {
          const look = () => [...document.querySelectorAll('[data-testid=row-songs]')]
            .some((row) => row.textContent.includes(title)) && (resolve(Date.now()), true);
          if (!look()) { const seen = new MutationObserver(() => look() && seen.disconnect());
            seen.observe(document.body, {childList: true, subtree: true, characterData: true}); }
        }); }""",
        title,
    )
    saved = sender.add_song(title)
    return float(receiver.page.evaluate("window.appeared")) - saved


def test_an_outsider_hears_nothing(band_app: BandApp, visit: Visit) -> None:
    """Subscribed to the same tables and band, Olga receives her own band's song and nothing else."""
    eric, mike, olga = visit(band_app.url), visit(band_app.url), visit(band_app.url)
    eric.sign_in("eric")
    mike.sign_in("mike")
    olga.sign_in("olga")
    with psycopg.connect(band_app.database_url, autocommit=True) as database:
        row = database.execute("select id::text from bands where id::text <> %s", (BAND,)).fetchone()
        assert row is not None
        answers = olga.page.evaluate(LISTEN_AS_OUTSIDER, [TOPICS, row[0]])
        assert {answer["status"] for answer in answers} == {"ok"}
        eric.add_song("Secret Song")
        mike.song("Secret Song").wait_for(timeout=2_000)
        # Changes arrive in the order of their commits: after this one, the other would have come.
        database.execute("insert into songs (band_id, title) values (%s, 'Own Song')", (row[0],))
    olga.page.wait_for_function("window.heard.length > 0")
    assert olga.page.evaluate("window.heard.map((change) => change.new.title)") == ["Own Song"]
    assert olga.song("Secret Song").count() == 0


def test_both_pages_survive_a_restart_of_the_server(folder: Path, visit: Visit) -> None:
    """Server and database go down and come back; both pages find each other again, without a reload."""
    with BandApp(folder) as app:
        eric, mike = visit(app.url), visit(app.url)
        eric.sign_in("eric")
        mike.sign_in("mike")
        app.stop()
        for visitor in (eric, mike):
            visitor.page.wait_for_selector('[data-testid="connection"]:not([data-state="live"])')
        app.start()
        for visitor in (eric, mike):
            visitor.live()
        eric.add_song("Encore")
        mike.toast('Eric added "Encore"').wait_for(timeout=5_000)


def test_the_page_is_worth_showing(folder: Path, visit: Visit) -> None:
    """A picture of the band app at work; `make picture` keeps it for the README."""
    with BandApp(folder) as app:
        eric, mike = visit(app.url), visit(app.url)
        eric.sign_in("eric")
        mike.sign_in("mike")
        mike.page.get_by_test_id("online-eric").wait_for()
        eric.add_song("New Song")
        mike.toast('Eric added "New Song"').wait_for()
        picture = mike.page.screenshot(path=os.environ.get("BACKBEAT_PICTURE"))
    assert picture.startswith(b"\x89PNG")
