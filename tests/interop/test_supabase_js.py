"""supabase-js as people install it, in Node: `supabase_js/` says what each scenario is about."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.interop.conftest import NODE, Stage

SCENARIOS = [
    "broadcast.both_ways",
    "broadcast.unchanged",
    "broadcast.oneself",
    "broadcast.acknowledged",
    "broadcast.in_order",
    "broadcast.between_versions",
    "broadcast.binary",
    "broadcast.many_channels",
    "broadcast.left_and_joined_anew",
    "presence.come_and_go",
    "presence.between_versions",
    "presence.update",
    "presence.latecomer",
    "presence.one_key_twice",
    "presence.leaving",
    "presence.disconnecting",
    "private.members",
    "private.refused",
    "private.refused_elsewhere",
    "private.listeners",
    "private.apart_from_public",
    "private.presence",
    "changes.events",
    "changes.envelope",
    "changes.own_rows",
    "changes.strangers",
    "changes.deleted_rows",
    "changes.values",
    "changes.big_numbers",
    "changes.unpublished",
    "session.sign_up_out_and_in",
    "session.refreshed_while_joined",
    "session.outlives_its_token",
    "session.somebody_else",
    "session.signed_out",
    "session.signed_out_and_in_again",
    "reconnect.cut",
    "reconnect.frozen",
    "reconnect.restarted",
    "reconnect.private_channel",
    "database.sent",
    "database.sent_in_public",
    "database.sent_binary",
    "database.triggered",
    "database.replayed",
    "http.not_joined",
    "http.http_send",
    "http.http_send_binary",
    "http.private_topic",
    "http.refused",
]


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(stage: Stage, scenario: str, vsn: str) -> None:
    """A stock client sees what the scenario says, with either version of the protocol."""
    stage.play(NODE, scenario, vsn=vsn)


def test_every_scenario_is_played() -> None:
    """None is forgotten in the list above."""
    listed = subprocess.run([*NODE, "--list"], capture_output=True, check=True)
    assert set(json.loads(listed.stdout)) == {*SCENARIOS, "together.asks", "session.from_a_file"}
