"""API keys, and the rule that turns what a caller sent into a token."""

from __future__ import annotations

import pytest

from backbeat.errors import TokenRefused
from backbeat.tokens.keys import ApiKeys

DEFAULT_SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"
KEYS = ApiKeys.of(DEFAULT_SECRET, publishable="sb_publishable_p", secret="sb_secret_s")


def test_the_default_secret_makes_the_well_known_keys() -> None:
    """What people paste from the documentation of a local project works, byte for byte."""
    header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    issuer = "eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6I"
    assert (
        KEYS.anon
        == f"{header}.{issuer}mFub24iLCJleHAiOjE5ODM4MTI5OTZ9.CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0"
    )
    assert KEYS.service.startswith(f"{header}.{issuer}nNlcnZpY2Vfcm9sZSIsImV4cCI6")
    assert KEYS.service.endswith("EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU")


def test_opaque_keys_stand_for_jwt_keys() -> None:
    """The publishable key is anon's, the secret key service_role's, and a JWT stands for itself."""
    assert KEYS.token_of("sb_publishable_p") == KEYS.anon
    assert KEYS.token_of("sb_secret_s") == KEYS.service
    assert KEYS.token_of("a.b.c") == "a.b.c"


def test_unknown_opaque_keys_are_refused() -> None:
    """A key of another project is not a key of this one."""
    with pytest.raises(TokenRefused, match="Invalid API key"):
        KEYS.token_of("sb_publishable_other")


def test_a_project_without_opaque_keys_accepts_none() -> None:
    """The empty default is not a key."""
    with pytest.raises(TokenRefused):
        ApiKeys.of(DEFAULT_SECRET).token_of("sb_")


@pytest.mark.parametrize(
    ("authorization", "apikey", "token"),
    [
        ("Bearer user.jwt.x", "sb_publishable_p", "user.jwt.x"),
        ("bearer user.jwt.x", "sb_publishable_p", "user.jwt.x"),
        ("Bearer sb_publishable_p", "sb_publishable_p", KEYS.anon),
        ("Bearer sb_secret_s", "", KEYS.service),
        ("", "sb_secret_s", KEYS.service),
        ("", "legacy.jwt.key", "legacy.jwt.key"),
        ("", "", None),
    ],
)
def test_the_translation_rule(authorization: str, apikey: str, token: str | None) -> None:
    """A Bearer token wins unless it is an opaque key; then, and without one, the API key decides."""
    assert KEYS.token_of_request(authorization, apikey) == token


@pytest.mark.parametrize("authorization", ["Basic dXNlcg==", "Bearer", "token"])
def test_other_authorizations_are_refused(authorization: str) -> None:
    """A header that is no Bearer token is an error, not an anonymous caller."""
    with pytest.raises(TokenRefused):
        KEYS.token_of_request(authorization, "sb_publishable_p")


def test_keys_are_never_shown() -> None:
    """`repr` of the keys tells none of them."""
    assert repr(KEYS) == "ApiKeys()"
