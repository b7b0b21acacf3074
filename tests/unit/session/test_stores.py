"""Every place that keeps a session keeps to the same contract."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

from backbeat.errors import StoreError
from backbeat.session.stores import FileStore, KeyringStore, MemoryStore, SessionStore
from backbeat.session.stores.lock import FileLock

PATIENCE = 10.0


class MemoryKeyring(KeyringBackend):
    """A keyring in memory, which can be locked."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # theirs
        self.entries: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        """Read an entry."""
        self._check()
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        """Write an entry."""
        self._check()
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        """Remove an entry."""
        self._check()
        if self.entries.pop((service, username), None) is None:
            raise PasswordDeleteError("no such entry")

    def _check(self) -> None:
        if self.locked:
            raise KeyringLocked("locked")


Open = Callable[[], SessionStore]


@pytest.fixture(params=["memory", "file", "keyring"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open the same place once more, as another program would."""
    memory, keyring = MemoryStore(), MemoryKeyring()
    kinds: dict[str, Open] = {
        "memory": lambda: memory,
        "file": lambda: FileStore(tmp_path / "folder" / "session.json", interval=0.01),
        "keyring": lambda: KeyringStore("band", backend=keyring, interval=0.01, locks=tmp_path),
    }
    return kinds[request.param]


async def test_what_is_set_is_got(open_store: Open) -> None:
    """By whoever opens the same place."""
    await open_store().set(b"one")
    assert await open_store().get() == b"one"


async def test_nothing_is_kept_at_first(open_store: Open) -> None:
    """And to remove it is no mistake."""
    store = open_store()
    await store.delete()
    assert await store.get() is None


async def test_what_is_deleted_is_gone(open_store: Open) -> None:
    """Twice is no mistake."""
    store = open_store()
    await store.set(b"one")
    await store.delete()
    await store.delete()
    assert await store.get() is None


@pytest.mark.parametrize(("expected", "swapped"), [(b"one", True), (b"two", False), (None, False)])
async def test_only_what_was_expected_is_replaced(
    open_store: Open, expected: bytes | None, swapped: bool
) -> None:
    """Otherwise somebody else was faster, and is not overwritten."""
    store = open_store()
    await store.set(b"one")
    assert await store.compare_and_set(expected, b"three") is swapped
    assert await store.get() == (b"three" if swapped else b"one")


async def test_of_many_who_compare_one_wins(open_store: Open) -> None:
    """All believe that nothing is kept; one of them is right."""
    stores = [open_store() for _ in range(8)]
    won = await asyncio.gather(
        *(store.compare_and_set(None, str(number).encode()) for number, store in enumerate(stores))
    )
    assert sum(won) == 1
    assert await stores[0].get() == str(won.index(True)).encode()


async def test_what_is_set_aside_is_gone_from_its_place(open_store: Open) -> None:
    """And somebody is told where it is."""
    store = open_store()
    await store.set(b"not a session")
    assert await store.set_aside(b"not a session")
    assert await store.get() is None


async def test_what_was_replaced_meanwhile_is_not_set_aside(open_store: Open) -> None:
    """The caller saw something else."""
    store = open_store()
    await store.set(b"a session")
    assert await store.set_aside(b"not a session") is None
    assert await store.get() == b"a session"


async def test_whoever_watches_learns_of_others(open_store: Open) -> None:
    """Once at first, then for every change there is time to see."""
    watching = open_store().watch()
    other = open_store()
    async with asyncio.timeout(PATIENCE):
        await anext(watching)
        for content in (b"one", b"two"):
            await other.set(content)
            await anext(watching)
        await other.delete()
        await anext(watching)
    await watching.aclose()  # type: ignore[attr-defined] # a generator


async def test_one_is_alone(open_store: Open) -> None:
    """The second waits until the first has finished; reading and writing go on."""
    order: list[str] = []
    inside, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with open_store().alone():
            inside.set()
            await open_store().set(b"one")
            await leave.wait()
            order.append("first")

    async def second() -> None:
        await inside.wait()
        leave.set()
        async with open_store().alone():
            order.append("second")

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(first(), second())
    assert order == ["first", "second"]


# The file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "session.json"


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file as somebody does who knows nothing of us."""
    path.write_bytes(content)
    path.chmod(mode)


def content(path: Path) -> bytes:
    """Read a file."""
    return path.read_bytes()


def mode(path: Path) -> int:
    """Who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_file_is_its_owners_alone(path: Path) -> None:
    """So are its folder and everything beside it."""
    store = FileStore(path.parent / "made" / "session.json")
    await store.set(b"one")
    assert mode(store.path.parent) == 0o700
    assert {mode(each) for each in store.path.parent.iterdir()} == {0o600}


async def test_a_file_that_others_could_read_is_made_private(path: Path) -> None:
    """Whoever wrote it was less careful."""
    write(path, b"one", mode=0o644)
    assert await FileStore(path).get() == b"one"
    assert mode(path) == 0o600


async def test_the_file_is_replaced_as_a_whole(path: Path) -> None:
    """Whoever has it open reads what was there to the end."""
    store = FileStore(path)
    await store.set(b"one" * 1_000)
    with path.open("rb") as reader:
        await store.set(b"two")
        assert reader.read() == b"one" * 1_000
    assert content(path) == b"two"


async def test_what_a_dead_process_left_is_no_obstacle(path: Path) -> None:
    """It died while it wrote: the next write and the next removal clear that away."""
    store, left = FileStore(path), path.with_name(".session.json.new")
    left.write_bytes(b'{"access_tok')
    await store.set(b"one")
    assert not left.exists()
    left.write_bytes(b'{"access_tok')
    await store.delete()
    assert not left.exists()


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    """People keep such files elsewhere."""
    elsewhere = tmp_path / "elsewhere.json"
    path.symlink_to(elsewhere)
    asyncio.run(FileStore(path).set(b"one"))
    assert path.is_symlink()
    assert elsewhere.read_bytes() == b"one"


async def test_the_home_folder_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~` is not the name of a folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    await FileStore("~/.band/session.json").set(b"one")
    assert (tmp_path / ".band" / "session.json").read_bytes() == b"one"


async def test_what_is_set_aside_is_kept_beside(path: Path) -> None:
    """Named by what it holds, so that the same mistake leaves one copy."""
    store = FileStore(path)
    for _ in range(2):
        write(path, b"not a session")
        aside = await store.set_aside(b"not a session")
    assert [each.read_bytes() for each in path.parent.glob("session.json.unreadable-*")] == [b"not a session"]
    assert aside
    assert mode(Path(aside)) == 0o600


@pytest.mark.parametrize("what", ["get", "set"])
def test_a_folder_in_its_place_is_a_store_error(path: Path, what: str) -> None:
    """It says which file, and what to check."""
    path.mkdir()
    store = FileStore(path)
    with pytest.raises(StoreError, match=r"session\.json cannot be read: Is a directory.*Check"):
        asyncio.run(store.get() if what == "get" else store.set(b"one"))


async def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "band").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        await FileStore(tmp_path / "band" / "session.json").compare_and_set(None, b"one")


async def test_a_write_that_is_cancelled_ends_before_its_caller(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be cancelled: when the caller is gone, nothing is written any more."""
    loop, began = asyncio.get_running_loop(), asyncio.Event()
    store = FileStore(path)
    replace = store._replace

    def slowly(content: bytes) -> None:
        loop.call_soon_threadsafe(began.set)
        replace(content)

    monkeypatch.setattr(store, "_replace", slowly)
    writing = asyncio.create_task(store.compare_and_set(None, b"one"))
    await began.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert content(path) == b"one"


async def test_a_lock_that_is_never_released_is_a_store_error(path: Path) -> None:
    """Another process was stopped in the middle: somebody is told which file to look at."""
    with FileLock(path, patience=PATIENCE).held(), pytest.raises(StoreError, match="fuser"):
        async with FileLock(path, patience=0.05).held_by_task():
            pass


# The keyring ------------------------------------------------------------------------------------------------


async def test_a_locked_keyring_is_a_store_error(tmp_path: Path) -> None:
    """It says how to go on."""
    keyring = MemoryKeyring()
    keyring.locked = True
    with pytest.raises(StoreError, match=r"KeyringLocked.*Unlock it"):
        await KeyringStore("band", backend=keyring, locks=tmp_path).get()


async def test_two_accounts_are_two_sessions(tmp_path: Path) -> None:
    """A program may keep several."""
    keyring = MemoryKeyring()
    stores = [KeyringStore("band", account, backend=keyring, locks=tmp_path) for account in ("eric", "mike")]
    await stores[0].set(b"one")
    assert await stores[1].get() is None


async def test_what_the_keyring_set_aside_is_another_entry(tmp_path: Path) -> None:
    """Under the same service, named by what it holds."""
    keyring = MemoryKeyring()
    store = KeyringStore("band", backend=keyring, locks=tmp_path)
    await store.set(b"not a session")
    await store.set_aside(b"not a session")
    assert list(keyring.entries.values()) == ["not a session"]
    assert all(account.startswith("session.unreadable-") for _, account in keyring.entries)
