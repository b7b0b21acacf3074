"""Keys that change while the server runs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ed25519

from backbeat.errors import ConfigurationError, Refusal
from backbeat.server.keyring import Keyring
from backbeat.tokens.claims import Token
from backbeat.tokens.verifier import sign

SECRET = "a secret of at least thirty-two bytes"
NOW = 1_700_000_000.0
CLAIMS: dict[str, Any] = {"role": "authenticated", "sub": "u1", "exp": int(NOW) + 60}


class Issuer:
    """Somebody who signs tokens and rotates the key."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._private = ed25519.Ed25519PrivateKey.generate()

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key."""
        return jwt.algorithms.OKPAlgorithm.to_jwk(self._private.public_key(), as_dict=True) | {
            "kid": self.kid
        }

    def token(self) -> str:
        """A token of this key."""
        return jwt.encode(CLAIMS, self._private, algorithm="EdDSA", headers={"kid": self.kid})


OLD, NEW = Issuer("old"), Issuer("new")


def key_set(*issuers: Issuer) -> bytes:
    """The key set of some issuers."""
    return json.dumps({"keys": [issuer.jwk for issuer in issuers]}).encode()


def write(file: Path, content: bytes | None) -> None:
    """Change a file, or remove it."""
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


def file_times(file: Path) -> tuple[int, int]:
    """When a file was read and written last, in nanoseconds."""
    status = file.stat()
    return status.st_atime_ns, status.st_mtime_ns


class Clock:
    """The time a cooldown is measured against."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Site:
    """An HTTP server on loopback that publishes a key set, slowly or badly if told to."""

    def __init__(self) -> None:
        self.body = key_set(OLD)
        self.head = "200 OK"
        self.requests: list[bytes] = []
        self.asked = asyncio.Semaphore(0)
        self.open = asyncio.Event()
        self.open.set()
        self.server: asyncio.Server

    async def start(self) -> Site:
        """Listen."""
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        """Where the key set is."""
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/jwks.json"

    async def stop(self) -> None:
        """Listen no more."""
        self.server.close()
        await self.server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            head, body = self.head, self.body
            self.asked.release()
            await self.open.wait()
            length = f"Content-Length: {len(body)}\r\n"
            writer.write(f"HTTP/1.1 {head}\r\n{length}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine would stand between us and loopback."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A site that publishes the old key."""
    site = await Site().start()
    yield site
    site.open.set()
    await site.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the old key."""
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(OLD))
    return path


@pytest.fixture
def clock() -> Clock:
    """A clock that only the test moves."""
    return Clock()


@pytest.fixture
async def make(clock: Clock) -> AsyncIterator[Callable[..., Keyring]]:
    """Make keyrings; all are closed at the end."""
    keyrings: list[Keyring] = []

    def begin(source: object = None, **options: Any) -> Keyring:
        keyrings.append(Keyring(SECRET, source=str(source) if source else None, clock=clock, **options))
        return keyrings[-1]

    yield begin
    for keyring in keyrings:
        await keyring.aclose()


def accepts(keyring: Keyring, issuer: Issuer) -> bool:
    """Whether the keys at hand verify an issuer's token."""
    try:
        keyring.verify_now(issuer.token(), now=NOW)
    except Refusal:
        return False
    return True


async def ask(keyring: Keyring, token: str) -> Token | Refusal:
    """Verify a token and return what came of it."""
    try:
        return await keyring.verify(token, now=NOW)
    except Refusal as refusal:
        return refusal


# Without a source -------------------------------------------------------------------------------------------


async def test_without_a_source_the_secret_decides(make: Callable[..., Keyring]) -> None:
    """A project that has no key set verifies HS* tokens."""
    keyring = make()
    await keyring.start()
    assert (await keyring.verify(sign(CLAIMS, SECRET), now=NOW)).claims.sub == "u1"


async def test_without_a_source_a_foreign_key_is_a_signer_error(make: Callable[..., Keyring]) -> None:
    """A project that has no key set knows no key by its id, and does not name one."""
    refusal = await ask(make(), OLD.token())
    assert isinstance(refusal, Refusal)
    assert "(kid)" not in refusal.message


@pytest.mark.parametrize(
    "source", ["ftp://host/jwks.json", "file:///etc/jwks.json", "https://", "http://host:port/"]
)
async def test_only_http_urls_are_sources(source: str) -> None:
    """Another scheme, or half a URL, is refused before anything starts."""
    with pytest.raises(ConfigurationError, match="The setting jwks"):
        Keyring(SECRET, source=source)


@pytest.mark.parametrize("option", ["refresh", "cooldown", "timeout"])
async def test_lengths_of_time_are_positive(option: str) -> None:
    """A keyring that never rests would busy the server and the issuer."""
    options: dict[str, Any] = {option: 0.0}
    with pytest.raises(ConfigurationError, match=option):
        Keyring(SECRET, **options)


# Files ------------------------------------------------------------------------------------------------------


async def test_a_file_is_read_at_start(make: Callable[..., Keyring], file: Path) -> None:
    """The first token is verified with the keys of the file."""
    keyring = make(file)
    await keyring.start()
    assert accepts(keyring, OLD)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b'{"keys": {}}', "no JSON object"),
        (b'{"key": []}', "no JSON object"),
        (b'{"keys": ' + b"[" * 100_000, "no JSON object"),
        (b" " * 2_000, "larger than 1000 bytes"),
    ],
    ids=["missing", "empty", "list", "keys are no list", "no keys", "deep", "large"],
)
async def test_a_bad_file_stops_the_start(
    make: Callable[..., Keyring], file: Path, content: bytes | None, why: str
) -> None:
    """A file that is no key set is an error of the configuration, and the setting is named."""
    write(file, content)
    max_bytes = 1_000 if content and content.isspace() else 1_048_576
    with pytest.raises(ConfigurationError, match=f"The setting jwks: .*{why}"):
        await make(file, max_bytes=max_bytes).start()


async def test_a_folder_is_no_key_set(make: Callable[..., Keyring], tmp_path: Path) -> None:
    """A path that is there but no file stops the start as well."""
    with pytest.raises(ConfigurationError, match="directory"):
        await make(tmp_path).start()


async def test_a_changed_file_is_read_again(make: Callable[..., Keyring], file: Path) -> None:
    """A key added to the file is found when a token names it."""
    keyring = make(file)
    await keyring.start()
    write(file, key_set(OLD, NEW))
    assert isinstance(await ask(keyring, NEW.token()), Token)


async def test_a_changed_file_is_noticed_without_a_token(make: Callable[..., Keyring], file: Path) -> None:
    """A key taken out of the file is gone although no token asks for another."""
    keyring = make(file, cooldown=0.01)
    await keyring.start()
    write(file, key_set(NEW))
    async with asyncio.timeout(10):
        while keyring.generation == 1:
            await asyncio.sleep(0.01)
    assert not accepts(keyring, OLD)


async def test_a_change_counts_whatever_the_times_of_the_file_say(
    make: Callable[..., Keyring], file: Path
) -> None:
    """A file restored with its old time and of the same size is read all the same."""
    keyring = make(file)
    await keyring.start()
    times = file_times(file)
    write(file, key_set(NEW))
    os.utime(file, ns=times)
    assert isinstance(await ask(keyring, NEW.token()), Token)


async def test_a_vanished_file_changes_nothing(make: Callable[..., Keyring], file: Path) -> None:
    """When the file goes away, the last keys stay, and the trouble is known."""
    keyring = make(file)
    await keyring.start()
    write(file, None)
    await ask(keyring, NEW.token())
    assert accepts(keyring, OLD)
    assert "cannot be read" in str(keyring.trouble)


async def test_a_half_written_file_changes_nothing(make: Callable[..., Keyring], file: Path) -> None:
    """A file caught while it is being written leaves the last keys."""
    keyring = make(file)
    await keyring.start()
    write(file, key_set(NEW)[:-5])
    await ask(keyring, NEW.token())
    assert accepts(keyring, OLD)


async def test_a_bad_file_stays_trouble_until_it_is_mended(
    make: Callable[..., Keyring], file: Path, clock: Clock
) -> None:
    """Reading the same nonsense again does not make it good."""
    keyring = make(file)
    await keyring.start()
    write(file, b"nonsense")
    for _ in range(2):
        await ask(keyring, NEW.token())
        clock.now += 10
    assert keyring.trouble is not None


# URLs -------------------------------------------------------------------------------------------------------


async def test_a_url_is_read_at_start(make: Callable[..., Keyring], site: Site) -> None:
    """The first token is verified with the keys of the URL."""
    keyring = make(site.url)
    await keyring.start()
    assert accepts(keyring, OLD)


async def test_a_url_may_be_down_at_start(make: Callable[..., Keyring], site: Site) -> None:
    """The issuer may start after us: its keys are read when a token needs them."""
    keyring = make(site.url)
    site.head = "503 Service Unavailable"
    await keyring.start()
    site.head = "200 OK"
    assert isinstance(await ask(keyring, OLD.token()), Token)


async def test_a_key_that_was_never_read_is_named(make: Callable[..., Keyring], site: Site) -> None:
    """While the issuer is away, a token's key is unknown, and the refusal says which."""
    site.head = "503 Service Unavailable"
    refusal = await ask(make(site.url), OLD.token())
    assert isinstance(refusal, Refusal)
    assert '(kid) "old"' in refusal.message


@pytest.mark.parametrize(
    ("head", "body", "why"),
    [
        ("500 Internal Server Error", key_set(NEW), "status 500"),
        ("200 OK", b"<html>", "no JSON object"),
        ("200 OK", b'"keys"', "no JSON object"),
        ("200 OK", b" " * 1_000 + key_set(NEW), "larger than 1000 bytes"),
        ("200 OK\r\nContent-Encoding: gzip", b"\x1f\x8b", "no JSON object"),
        ("302 Found\r\nLocation: https://127.0.0.1/", b"", "redirects to the scheme https"),
        ("302 Found\r\nLocation: file:///etc/passwd", b"", "redirects to the scheme file"),
        ("302 Found\r\nLocation: /jwks.json", b"", "redirects too often"),
        ("302 Found", key_set(NEW), "status 302"),
        ("NONSENSE", b"", "cannot be fetched"),
    ],
    ids=["500", "html", "text", "large", "packed", "https", "file", "loop", "nowhere", "no HTTP"],
)
async def test_a_bad_answer_changes_nothing(
    make: Callable[..., Keyring], site: Site, head: str, body: bytes, why: str
) -> None:
    """Whatever the issuer answers but a key set: the last keys stay, and the trouble is known."""
    keyring = make(site.url, max_bytes=1_000)
    await keyring.start()
    site.head, site.body = head, body
    await ask(keyring, NEW.token())
    assert accepts(keyring, OLD)
    assert why in str(keyring.trouble)


async def test_an_outage_changes_nothing(make: Callable[..., Keyring], site: Site) -> None:
    """While nobody listens, the last keys stay."""
    keyring = make(site.url)
    await keyring.start()
    await site.stop()
    await ask(keyring, NEW.token())
    assert accepts(keyring, OLD)


async def test_a_slow_issuer_is_not_waited_for(make: Callable[..., Keyring], site: Site) -> None:
    """An answer that does not come in time is trouble, and no reason to keep a client waiting."""
    keyring = make(site.url, timeout=0.05)
    site.open.clear()
    await keyring.start()
    assert "did not answer within 0.05 s" in str(keyring.trouble)


async def test_redirects_within_the_scheme_are_followed(make: Callable[..., Keyring], site: Site) -> None:
    """An issuer may move its key set."""
    other = await Site().start()
    site.head = f"307 Temporary Redirect\r\nLocation: {other.url}"
    keyring = make(site.url)
    await keyring.start()
    await other.stop()
    assert accepts(keyring, OLD)


async def test_trouble_ends_with_a_good_answer(
    make: Callable[..., Keyring], site: Site, clock: Clock
) -> None:
    """What was wrong is forgotten when the issuer is back."""
    keyring = make(site.url)
    await keyring.start()
    good, site.body = site.body, b"nonsense"
    await ask(keyring, NEW.token())
    site.body = good
    clock.now += 10
    await ask(keyring, NEW.token())
    assert keyring.trouble is None


# Rotation ---------------------------------------------------------------------------------------------------


async def test_a_new_key_is_accepted_at_once(make: Callable[..., Keyring], site: Site) -> None:
    """A token signed with a key we have not seen makes us look, and then it is good."""
    keyring = make(site.url)
    await keyring.start()
    site.body = key_set(OLD, NEW)
    assert isinstance(await ask(keyring, NEW.token()), Token)


async def test_a_key_that_is_gone_is_refused(make: Callable[..., Keyring], site: Site) -> None:
    """After the rotation the old key verifies nothing."""
    keyring = make(site.url)
    await keyring.start()
    site.body = key_set(NEW)
    await ask(keyring, NEW.token())
    assert not accepts(keyring, OLD)


async def test_an_empty_key_set_takes_every_key_away(make: Callable[..., Keyring], site: Site) -> None:
    """Taking all keys back is an answer, not an outage."""
    keyring = make(site.url)
    await keyring.start()
    site.body = key_set()
    await ask(keyring, NEW.token())
    assert not accepts(keyring, OLD)


async def test_the_key_set_is_read_again_by_itself(make: Callable[..., Keyring], site: Site) -> None:
    """A URL is asked again after the refresh interval."""
    keyring = make(site.url, refresh=0.01)
    await keyring.start()
    async with asyncio.timeout(10):
        await site.asked.acquire()
        await site.asked.acquire()


async def test_a_shared_key_may_be_new_as_well(make: Callable[..., Keyring], site: Site) -> None:
    """An HS256 token that names an unknown key, and that the secret does not verify, makes us look."""
    shared = b"another secret of thirty-two bytes"
    keyring = make(site.url)
    await keyring.start()
    k = base64.urlsafe_b64encode(shared).rstrip(b"=").decode()
    site.body = json.dumps({"keys": [{"kty": "oct", "kid": "s", "k": k}]}).encode()
    token = jwt.encode(CLAIMS, shared, algorithm="HS256", headers={"kid": "s"})
    assert isinstance(await ask(keyring, token), Token)


async def test_the_generation_counts_key_sets(make: Callable[..., Keyring], site: Site, clock: Clock) -> None:
    """The same answer again is no new generation; another one is."""
    keyring = make(site.url)
    await keyring.start()
    await ask(keyring, NEW.token())
    same = keyring.generation
    site.body, clock.now = key_set(NEW), 10.0
    await ask(keyring, NEW.token())
    assert (same, keyring.generation) == (1, 2)


# Unknown keys -----------------------------------------------------------------------------------------------


async def test_many_unknown_keys_cause_one_refresh(make: Callable[..., Keyring], site: Site) -> None:
    """Fifty clients with the new key, and one question to the issuer, answer for all."""
    keyring = make(site.url)
    await keyring.start()
    site.body = key_set(NEW)
    await asyncio.gather(*(ask(keyring, NEW.token()) for _ in range(50)))
    assert len(site.requests) == 2


async def test_made_up_keys_do_not_ask_twice_within_the_cooldown(
    make: Callable[..., Keyring], site: Site, clock: Clock
) -> None:
    """Strangers cannot make us flood the issuer."""
    keyring = make(site.url)
    await keyring.start()
    for moment in (0.0, 5.0, 9.9):
        clock.now = moment
        await ask(keyring, Issuer(f"made up {moment}").token())
    assert len(site.requests) == 2


async def test_after_the_cooldown_an_unknown_key_asks_again(
    make: Callable[..., Keyring], site: Site, clock: Clock
) -> None:
    """A key that comes later is found later."""
    keyring = make(site.url)
    await keyring.start()
    await ask(keyring, NEW.token())
    site.body, clock.now = key_set(NEW), 10.0
    assert isinstance(await ask(keyring, NEW.token()), Token)


async def test_refreshes_on_demand_keep_the_cooldown(make: Callable[..., Keyring], site: Site) -> None:
    """Whoever was told that a key may be new, and comes late, causes no second question."""
    keyring = make(site.url)
    await keyring.start()
    await keyring.refresh()
    await keyring.refresh()
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        sign(CLAIMS, SECRET + "!"),
        sign(CLAIMS | {"exp": 1}, SECRET),
        OLD.token()[:-6] + "AAAAAA",
        jwt.encode(CLAIMS, SECRET, algorithm="HS256", headers={"kid": "never was"}),
    ],
    ids=["garbage", "another secret", "expired", "forged", "secret with a kid"],
)
async def test_only_unknown_keys_ask_the_issuer(make: Callable[..., Keyring], site: Site, token: str) -> None:
    """A token that no other key set would judge otherwise costs no question."""
    keyring = make(site.url)
    await keyring.start()
    await ask(keyring, token)
    assert len(site.requests) == 1


async def test_a_refresh_that_began_too_early_is_followed_by_another(
    make: Callable[..., Keyring], site: Site
) -> None:
    """The issuer answered a running question before it had the key: the token is not refused for that."""
    keyring = make(site.url, refresh=0.01)
    await keyring.start()
    async with asyncio.timeout(10):
        site.open.clear()
        while len(site.requests) < 2:
            await site.asked.acquire()
        # The second answer, old keys only, was decided; now the issuer rotates.
        site.body = key_set(NEW)
        asking = asyncio.create_task(ask(keyring, NEW.token()))
        site.open.set()
        assert isinstance(await asking, Token)


async def test_who_stops_waiting_does_not_stop_the_others(make: Callable[..., Keyring], site: Site) -> None:
    """A client that goes away during a refresh does not take it along."""
    keyring = make(site.url)
    await keyring.start()
    await site.asked.acquire()
    site.body = key_set(NEW)
    site.open.clear()
    first, second = (asyncio.create_task(ask(keyring, NEW.token())) for _ in range(2))
    await site.asked.acquire()
    first.cancel()
    await asyncio.wait({first})
    site.open.set()
    assert isinstance(await second, Token)


# Ending -----------------------------------------------------------------------------------------------------


async def test_closing_ends_a_refresh_and_answers_who_waits(make: Callable[..., Keyring], site: Site) -> None:
    """At the end nobody is left hanging: a token whose key did not come is refused."""
    keyring = make(site.url)
    await keyring.start()
    await site.asked.acquire()
    site.open.clear()
    waiting = asyncio.create_task(ask(keyring, NEW.token()))
    await site.asked.acquire()
    await keyring.aclose()
    assert isinstance(await waiting, Refusal)


async def test_no_task_is_left_behind(make: Callable[..., Keyring], site: Site) -> None:
    """`aclose` waits for everything the keyring started."""
    before = asyncio.all_tasks()
    keyring = make(site.url, refresh=0.01)
    await keyring.start()
    await keyring.aclose()
    ours = [task for task in asyncio.all_tasks() - before if "keyring" in task.get_name()]
    assert ours == []


async def test_a_closed_keyring_asks_nobody(make: Callable[..., Keyring], site: Site) -> None:
    """After the end, an unknown key is simply refused."""
    keyring = make(site.url)
    await keyring.start()
    await keyring.aclose()
    await ask(keyring, NEW.token())
    await keyring.refresh()
    assert len(site.requests) == 1


# What is said -----------------------------------------------------------------------------------------------


async def test_a_skipped_key_is_named_by_its_id_only(make: Callable[..., Keyring], file: Path) -> None:
    """The log tells which key cannot be used, and nothing of the key."""
    write(file, b'{"keys": [{"kty": "oct", "kid": "k9", "k": "c2hvcnQ"}]}')
    with structlog.testing.capture_logs() as lines:
        await make(file).start()
    [line] = [line for line in lines if line["event"] == "key skipped"]
    assert line["kid"] == "k9"
    assert "c2hvcnQ" not in str(lines)


async def test_credentials_of_a_url_are_not_said(make: Callable[..., Keyring], site: Site) -> None:
    """Neither a password nor a query reaches the log."""
    url = site.url.replace("http://", "http://someone:hush@") + "?apikey=hush"
    site.head = "500 Internal Server Error"
    with structlog.testing.capture_logs() as lines:
        keyring = make(url)
        await keyring.start()
    assert "hush" not in str(lines) + str(keyring.trouble) + repr(keyring)


async def test_the_same_trouble_is_logged_once(
    make: Callable[..., Keyring], site: Site, clock: Clock
) -> None:
    """An issuer that is away for a day does not fill the log."""
    site.head = "500 Internal Server Error"
    keyring = make(site.url)
    with structlog.testing.capture_logs() as lines:
        await keyring.start()
        await ask(keyring, NEW.token())
    assert [line["event"] for line in lines] == ["key set not read"]
