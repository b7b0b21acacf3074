"""The two shapes of an error body."""

import pytest

from backbeat.local.auth import errors
from backbeat.protocol.reasons import Reason


@pytest.mark.parametrize("version", ["2024-01-01", "2025-12-31"])
def test_newer_versions_read_codes(version: str) -> None:
    """From the first version with codes on, `code` is a text."""
    assert errors.understands_codes(version)


@pytest.mark.parametrize("version", ["", "2023-12-31", "latest", "2024-1-1", "2024/01/01"])
def test_others_get_the_old_shape(version: str) -> None:
    """Without the header, before that version, or with nonsense, `code` is a number."""
    assert not errors.understands_codes(version)


def test_new_shape() -> None:
    """The newer body has the code and the message."""
    assert errors.error_body(errors.INVALID_CREDENTIALS.refusal(), coded=True) == {
        "code": "invalid_credentials",
        "message": "Invalid login credentials",
    }


def test_old_shape() -> None:
    """The older body has the status as its code."""
    assert errors.error_body(errors.INVALID_CREDENTIALS.refusal(), coded=False) == {
        "code": 400,
        "error_code": "invalid_credentials",
        "msg": "Invalid login credentials",
    }


@pytest.mark.parametrize("coded", [True, False])
def test_weak_password_names_its_reasons(coded: bool) -> None:
    """Both shapes list the broken rules."""
    body = errors.error_body(errors.PASSWORD_TOO_SHORT.refusal(least=6), coded=coded)
    assert body["weak_password"] == {"reasons": ["length"]}


def test_unknown_key_reads_as_from_a_gateway() -> None:
    """The body of a refused API key has message and hint, whatever the caller's version."""
    body = errors.error_body(errors.API_KEY_UNKNOWN.refusal(), coded=False)
    assert (body["message"], body["hint"]) == ("Invalid API key", "Double check your API key.")


def test_only_our_own_failures_are_server_errors() -> None:
    """auth-js takes a status of 500 and more for an outage: no mistake of a client may have one."""
    table = {name: value for name, value in vars(errors).items() if isinstance(value, Reason)}
    assert {name for name, reason in table.items() if reason.status >= 500} == {
        "DATABASE_UNAVAILABLE",
        "UNEXPECTED",
    }
