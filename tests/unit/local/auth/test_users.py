"""What sign-ups, changes, bans and deletions make of a user."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace

from backbeat.errors import BadRequest, Denied
from backbeat.local.auth.requests import AdminUser, OwnChange
from backbeat.local.auth.users import (
    MAX_METADATA,
    User,
    anonymous_user,
    ban_end,
    changed_by_admin,
    changed_by_owner,
    check_may_sign_in,
    check_metadata,
    created_by_admin,
    email_address,
    merged,
    phone_number,
    signed_up,
    soft_deleted,
)
from backbeat.tokens.verifier import MAX_TOKEN_BYTES, sign

NOW = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ID = UUID("8a6f2c1e-3b9d-4c55-9d0f-5f2e6f1f7a10")
ADA = signed_up(ID, "ada@example.com", {"nick": "ada"}, confirmed=True, now=NOW)
ANONYMOUS = anonymous_user(ID, {"nick": "guest"}, now=NOW)


def wire(user: User) -> dict[str, Any]:
    """The user as a client reads it."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(user))
    return decoded


def test_wire_of_a_user() -> None:
    """A user looks as clients expect: stamps that are not set are absent, the phone is an empty text."""
    assert wire(ADA) == {
        "id": str(ID),
        "aud": "authenticated",
        "role": "authenticated",
        "email": "ada@example.com",
        "email_confirmed_at": "2026-03-01T10:00:00Z",
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {
            "nick": "ada",
            "sub": str(ID),
            "email": "ada@example.com",
            "email_verified": True,
            "phone_verified": False,
        },
        "identities": [],
        "created_at": "2026-03-01T10:00:00Z",
        "updated_at": "2026-03-01T10:00:00Z",
        "is_anonymous": False,
    }


def test_sign_up_does_not_let_the_caller_claim_another_address() -> None:
    """Our own keys of `user_metadata` win over the caller's."""
    user = signed_up(ID, "ada@example.com", {"email": "bob@example.com"}, confirmed=True, now=NOW)
    assert user.user_metadata["email"] == "ada@example.com"


def test_sign_up_without_confirmation() -> None:
    """An address that is not confirmed has no stamp and is not verified."""
    user = signed_up(ID, "ada@example.com", None, confirmed=False, now=NOW)
    assert (user.email_confirmed_at, user.user_metadata["email_verified"]) == (None, False)


def test_anonymous_user() -> None:
    """An anonymous user has no address and no provider."""
    body = wire(ANONYMOUS)
    assert (body["is_anonymous"], body["email"], body["app_metadata"]) == (True, "", {})
    assert body["user_metadata"] == {"nick": "guest"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" Ada@Example.COM ", "ada@example.com"),
        ("a@localhost", "a@localhost"),
        ("a.b+c'd@x-y.co.uk", "a.b+c'd@x-y.co.uk"),
    ],
)
def test_email_address(text: str, address: str) -> None:
    """Addresses are stored in lower case, without the blanks around them."""
    assert email_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "a b@example.com",
        "ada@example..com",
        "ada@-x.com",
        "ada@example.com\n.x",
        "a@b@c",
        "ada@" + "x" * 64 + ".com",
        "a" * 65 + "@example.com",
        "a@" + "b." * 130 + "c",
        "ä@example.com",
    ],
)
def test_malformed_email_address(text: str) -> None:
    """Anything else is refused in the words of the original."""
    with pytest.raises(BadRequest) as caught:
        email_address(text)
    assert caught.value.message == "Unable to validate email address: invalid format"


def test_phone_number() -> None:
    """Numbers are stored as digits."""
    assert phone_number("+49 170 1234567") == "491701234567"


@pytest.mark.parametrize("text", ["", "+", "0170", "12a", "1" * 16, "١٢٣"])
def test_malformed_phone_number(text: str) -> None:
    """What is not E.164 is refused."""
    with pytest.raises(BadRequest):
        phone_number(text)


def test_merge_goes_key_by_key() -> None:
    """New keys win, others stay, None deletes, and objects inside are replaced."""
    assert merged({"a": 1, "b": {"x": 1}, "c": 3}, {"b": {"y": 2}, "c": None}) == {"a": 1, "b": {"y": 2}}


def test_owner_changes_metadata() -> None:
    """`data` is merged into `user_metadata`, and nothing else changes."""
    after = changed_by_owner(ADA, OwnChange(data={"nick": None, "band": 7}), autoconfirm=True, now=LATER)
    expected = {key: value for key, value in ADA.user_metadata.items() if key != "nick"} | {"band": 7}
    assert after == replace(ADA, user_metadata=expected, updated_at=LATER)


def test_owner_changes_the_address() -> None:
    """With autoconfirm a new address counts at once, also in the metadata that repeats it."""
    after = changed_by_owner(ADA, OwnChange(email="Ada@New.example"), autoconfirm=True, now=LATER)
    assert (after.email, after.email_confirmed_at) == ("ada@new.example", LATER)
    assert after.user_metadata["email"] == "ada@new.example"


def test_new_address_waits_without_autoconfirm() -> None:
    """Without autoconfirm the old address stays, and the new one is shown as pending."""
    after = changed_by_owner(ADA, OwnChange(email="ada@new.example"), autoconfirm=False, now=LATER)
    assert (after.email, after.new_email) == ("ada@example.com", "ada@new.example")


def test_same_address_changes_nothing() -> None:
    """Sending one's own address again is no change."""
    after = changed_by_owner(ADA, OwnChange(email="ADA@example.com"), autoconfirm=True, now=LATER)
    assert after == replace(ADA, updated_at=LATER)


def test_anonymous_user_becomes_an_ordinary_one() -> None:
    """With an address and a password, an anonymous user is one no more."""
    wish = OwnChange(email="ada@example.com", password="correct horse")
    after = changed_by_owner(ANONYMOUS, wish, autoconfirm=True, now=LATER)
    assert (after.is_anonymous, after.app_metadata["provider"]) == (False, "email")


def test_anonymous_user_needs_an_address_for_a_password() -> None:
    """A password without an address could never be used."""
    with pytest.raises(BadRequest, match="anonymous user"):
        changed_by_owner(ANONYMOUS, OwnChange(password="correct horse"), autoconfirm=True, now=LATER)


def test_admin_creates_a_confirmed_user() -> None:
    """`email_confirm` stamps the address; what the administrator says is kept."""
    body = AdminUser(
        email="Bob@Example.com",
        email_confirm=True,
        user_metadata={"nick": "bob"},
        app_metadata={"plan": "gold"},
        role="musician",
    )
    user = created_by_admin(ID, body, now=NOW)
    assert (user.email, user.email_confirmed_at, user.role) == ("bob@example.com", NOW, "musician")
    assert user.app_metadata == {"provider": "email", "providers": ["email"], "plan": "gold"}
    assert user.user_metadata == {"nick": "bob", "email_verified": True}


def test_admin_creates_an_unconfirmed_user() -> None:
    """Without `email_confirm` the address is not confirmed."""
    assert created_by_admin(ID, AdminUser(email="bob@example.com"), now=NOW).email_confirmed_at is None


def test_admin_creates_a_user_with_a_phone() -> None:
    """A phone number alone is enough."""
    user = created_by_admin(ID, AdminUser(phone="+491701234567", phone_confirm=True), now=NOW)
    assert (user.phone, user.phone_confirmed_at) == ("491701234567", NOW)


def test_admin_cannot_create_a_user_nobody_can_name() -> None:
    """There has to be an address or a number."""
    with pytest.raises(BadRequest, match="without either an email or phone"):
        created_by_admin(ID, AdminUser(email=""), now=NOW)


def test_admin_change_leaves_the_rest() -> None:
    """What the administrator does not name stays as it is."""
    after = changed_by_admin(ADA, AdminUser(app_metadata={"plan": "gold"}), now=LATER)
    assert after == replace(ADA, app_metadata=ADA.app_metadata | {"plan": "gold"}, updated_at=LATER)


def test_admin_lifts_a_ban() -> None:
    """`none` ends a ban."""
    banned = changed_by_admin(ADA, AdminUser(ban_duration="1h"), now=NOW)
    assert changed_by_admin(banned, AdminUser(ban_duration="none"), now=NOW).banned_until is None


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("24h", timedelta(hours=24)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1.5h", timedelta(hours=1.5)),
        ("300ms", timedelta(milliseconds=300)),
        ("10s5us", timedelta(seconds=10, microseconds=5)),
    ],
)
def test_ban_end(duration: str, expected: timedelta) -> None:
    """Durations are numbers with units, added up."""
    assert ban_end(duration, NOW) == NOW + expected


@pytest.mark.parametrize("duration", ["", "24", "h", "-1h", "1 h", "1d", "1h ", "999999999999999h", "1.h"])
def test_bad_ban_duration(duration: str) -> None:
    """Anything else is refused, and so is what no calendar holds."""
    with pytest.raises(BadRequest, match="ban duration"):
        ban_end(duration, NOW)


def test_banned_user_may_not_sign_in() -> None:
    """A ban holds until it ends."""
    banned = replace(ADA, banned_until=LATER)
    with pytest.raises(Denied) as caught:
        check_may_sign_in(banned, now=NOW)
    assert (caught.value.code, caught.value.status) == ("user_banned", 400)


def test_ban_is_over_when_it_ends() -> None:
    """At its end a ban is over."""
    check_may_sign_in(replace(ADA, banned_until=LATER), now=LATER)


def test_unconfirmed_user_may_not_sign_in() -> None:
    """An address has to be confirmed."""
    with pytest.raises(Denied) as caught:
        check_may_sign_in(replace(ADA, email_confirmed_at=None), now=NOW)
    assert (caught.value.code, caught.value.status) == ("email_not_confirmed", 400)


def test_soft_deleted_user_is_forgotten() -> None:
    """What remains has an id and nothing that tells who it was."""
    body = wire(soft_deleted(replace(ADA, phone="491701234567"), now=LATER))
    assert (body["email"], body["phone"], body["user_metadata"]) == ("", "", {})
    assert body["deleted_at"] == "2026-03-01T11:00:00Z"


def test_metadata_at_the_limit_fits_a_token() -> None:
    """The most metadata we accept still makes a token that the verifier takes."""
    user = replace(ADA, app_metadata={}, user_metadata={"x": "é" * ((MAX_METADATA - 20) // 6)})
    check_metadata(user)
    assert len(sign({"user_metadata": user.user_metadata}, "secret" * 6)) < MAX_TOKEN_BYTES - 1024


@pytest.mark.parametrize("value", ["x" * MAX_METADATA, "é" * (MAX_METADATA // 6)])
def test_refuses_metadata_that_no_token_holds(value: str) -> None:
    """More would lock the user out, with a token that every service refuses."""
    with pytest.raises(BadRequest, match="Metadata is too large"):
        check_metadata(replace(ADA, user_metadata={"x": value}))


def test_refuses_deep_metadata() -> None:
    """Nesting is bounded before anything recurses over it."""
    value: object = 0
    for _ in range(900):
        value = [value]
    with pytest.raises(BadRequest):
        check_metadata(replace(ADA, user_metadata={"x": value}))
