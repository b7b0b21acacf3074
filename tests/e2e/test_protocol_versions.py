"""Unmodified supabase-js in a browser, over both versions of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.conftest import USERS, BandApp, Visitor

BAND = "ba2d0000-0000-4000-8000-000000000001"

Visit = Callable[[str], Visitor]

PLAY = """async ({vsn, url, key, email, password, band}) => {
  const client = window.supabase.createClient(url, key, {
    realtime: {vsn}, auth: {storageKey: `plays-${vsn}`, autoRefreshToken: false},
  });
  const signedIn = await client.auth.signInWithPassword({email, password});
  if (signedIn.error) throw signedIn.error;
  const once = (arm) => new Promise((resolve) => arm(resolve));
  const heard = {};

  const room = client.channel(`room-${vsn}`, {
    config: {broadcast: {self: true, ack: true}, presence: {key: 'me'}},
  });
  const broadcast = once((done) => room.on('broadcast', {event: 'hi'}, (message) => done(message.payload)));
  const synced = once((done) => room.on('presence', {event: 'join'}, ({newPresences}) => done(newPresences)));
  heard.joined = await once((done) => room.subscribe(done));
  heard.acknowledged = await room.send({type: 'broadcast', event: 'hi', payload: {n: 1}});
  heard.broadcast = await broadcast;
  heard.tracked = await room.track({plays: 'bass'});
  heard.presence = (await synced).map(({plays}) => plays);

  const songs = client.channel(`songs-${vsn}`);
  const change = once((done) => songs.on('postgres_changes',
    {event: 'INSERT', schema: 'public', table: 'songs', filter: `band_id=eq.${band}`}, done));
  const ready = once((done) => songs.on('system', {}, done));
  songs.subscribe();
  heard.ready = (await ready).message;
  const title = `Over ${vsn}`;
  const inserted = await client.from('songs').insert({band_id: band, title}).select('id').single();
  if (inserted.error) throw inserted.error;
  const {eventType, new: row} = await change;
  heard.change = [eventType, row.title, row.id === inserted.data.id];

  const secret = client.channel('not-for-me', {config: {private: true}});
  heard.refused = await once((done) => secret.subscribe(
    (status, error) => status === 'CHANNEL_ERROR' && done(String(error))));
  await client.removeAllChannels();
  await client.realtime.disconnect();
  return heard;
}"""


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_a_browser_plays_over_both_versions(band_app: BandApp, visit: Visit, vsn: str) -> None:
    """Sign-in, broadcast, acknowledgement, presence, row changes, and a private channel that is refused."""
    visitor = visit(band_app.url)
    visitor.page.goto(band_app.url)
    config: dict[str, Any] = visitor.page.evaluate("fetch('/config.json').then((answer) => answer.json())")
    email, password = USERS["eric"]
    heard = visitor.page.evaluate(
        PLAY,
        {
            "vsn": vsn,
            "url": config["url"],
            "key": config["anonKey"],
            "email": email,
            "password": password,
            "band": BAND,
        },
    )
    refused = heard.pop("refused")
    assert heard == {
        "joined": "SUBSCRIBED",
        "acknowledged": "ok",
        "broadcast": {"n": 1},
        "tracked": "ok",
        "presence": ["bass"],
        "ready": "Subscribed to PostgreSQL",
        "change": ["INSERT", f"Over {vsn}", True],
    }
    assert "Unauthorized: You do not have permissions to read from this Channel topic: not-for-me" in refused
