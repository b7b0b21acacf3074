"""The books notice what is lost, doubled, swapped, late, early, stale or invented; and nothing else."""

from __future__ import annotations

import pytest
from tests.soak.ledger import Ledger, Place, Sender, Stay

ROOM = Place("room")
ROWS = Place("rows", at_once=False)


class Books:
    """A ledger with one sender and one who was there before it."""

    def __init__(self, place: Place = ROOM) -> None:
        self.ledger = Ledger()
        self.place = place
        self.sender = self.ledger.sender("s", place)
        self.stay = self.come("eric")

    def come(self, who: str, *, without: Sender | None = None) -> Stay:
        """Somebody joins."""
        stay = self.ledger.joining(who, self.place, without=without)
        self.ledger.joined(stay)
        return stay

    def send(self, count: int) -> None:
        """Send, and have it accepted."""
        for _ in range(count):
            self.ledger.sent(self.sender)
        self.ledger.accepted(self.sender)

    def receive(self, *numbers: int, stay: Stay | None = None) -> None:
        """Somebody gets messages."""
        for number in numbers:
            self.ledger.receive(stay or self.stay, "s", number)

    @property
    def kinds(self) -> list[str]:
        """What went wrong, in one word each, the end of the books included."""
        return [fault.partition(":")[0] for fault in self.ledger.close()]


@pytest.mark.parametrize(
    ("received", "kinds"),
    [
        ((1, 2, 3, 4), []),
        ((1, 2, 4), ["lost"]),
        ((2, 3, 4), ["lost"]),
        ((1, 2, 3), ["lost"]),
        ((), ["lost"]),
        ((1, 2, 2, 3, 4), ["doubled"]),
        ((1, 2, 3, 4, 1), ["doubled"]),
        ((1, 3, 2, 4), ["lost", "swapped"]),
        ((2, 1, 3, 4), ["lost", "swapped"]),
        ((1, 2, 3, 4, 5), ["invented"]),
    ],
)
def test_whoever_is_there_gets_everything_once_and_in_order(
    received: tuple[int, ...], kinds: list[str]
) -> None:
    """Four messages are sent to somebody who stays; whatever differs has a name."""
    books = Books()
    books.send(4)
    books.receive(*received)
    assert books.kinds == kinds


def test_nothing_is_due_from_a_sender_that_was_cut_off() -> None:
    """What it wrote before that may be lost."""
    books = Books()
    books.ledger.sent(books.sender)
    assert books.kinds == []


def test_what_one_member_has_is_due_to_all_others() -> None:
    """A message of a sender that was cut off is lost for everybody alike, or for nobody."""
    books = Books()
    other = books.come("mike")
    books.ledger.sent(books.sender)
    books.receive(1, stay=other)
    assert books.kinds == ["lost"]


def test_what_was_published_before_a_leave_is_due_before_its_answer() -> None:
    """Asking to leave excuses nobody from what was on its way."""
    books = Books()
    books.send(2)
    books.receive(1)
    books.ledger.published(books.sender)
    books.ledger.leaving(books.stay)
    books.ledger.left(books.stay)
    assert books.kinds == ["lost"]


def test_rows_that_were_on_their_way_may_miss_who_leaves() -> None:
    """They are not written to all who are there at once."""
    books = Books(ROWS)
    books.send(1)
    other = books.come("mike")
    books.receive(1)
    books.ledger.leaving(books.stay)
    books.ledger.leaving(other)
    books.ledger.left(other)
    assert books.kinds == []


def test_what_is_sent_around_a_leave_may_come() -> None:
    """Two come before the answer, in order."""
    books = Books()
    books.ledger.leaving(books.stay)
    books.send(3)
    books.receive(1, 2)
    books.ledger.left(books.stay)
    assert books.kinds == []


def test_nothing_comes_after_a_leave_was_answered() -> None:
    """It is late."""
    books = Books()
    books.send(1)
    books.ledger.leaving(books.stay)
    books.ledger.left(books.stay)
    books.receive(1)
    assert books.kinds == ["late"]


def test_nothing_comes_before_a_join_was_answered() -> None:
    """It is early."""
    books = Books()
    newcomer = books.ledger.joining("mike", ROOM)
    books.send(1)
    books.receive(1)
    books.receive(1, stay=newcomer)
    assert books.kinds == ["early"]


def test_what_is_sent_around_a_join_may_come() -> None:
    """The newcomer begins somewhere, and misses nothing from there on."""
    books = Books()
    newcomer = books.ledger.joining("mike", ROOM)
    books.send(2)
    books.ledger.joined(newcomer)
    books.send(1)
    books.receive(1, 2, 3)
    books.receive(2, 3, stay=newcomer)
    assert books.kinds == []


def test_what_was_published_before_a_join_never_comes() -> None:
    """It is stale."""
    books = Books()
    books.send(1)
    books.receive(1)
    newcomer = books.come("mike")
    books.receive(1, stay=newcomer)
    assert books.kinds == ["stale"]


@pytest.mark.parametrize(
    ("received", "kinds"),
    [
        ((2, 3, 4), []),
        ((1, 2, 3, 4), []),
        ((3, 4), ["lost"]),
        ((4,), ["lost"]),
        ((2, 3), ["lost"]),
        ((2, 3, 2, 4), ["doubled"]),
        ((3, 2, 4), ["lost", "swapped"]),
    ],
)
def test_whoever_joins_with_a_replay_gets_the_newest_as_well(
    received: tuple[int, ...], kinds: list[str]
) -> None:
    """Of what is stored; once, in order, and with nothing missing before what follows."""
    ledger = Ledger()
    sender = ledger.sender("s", ROOM, stored=True)
    listener = ledger.joining("eric", ROOM)
    ledger.joined(listener)
    stay = ledger.joining("mike", ROOM, replay=2)
    for number in (1, 2, 3):
        ledger.accepted(sender, ledger.sent(sender))
        ledger.receive(listener, "s", number)
    ledger.joined(stay)
    ledger.accepted(sender, ledger.sent(sender))
    ledger.receive(listener, "s", 4)
    for number in received:
        ledger.receive(stay, "s", number)
    assert [fault.partition(":")[0] for fault in ledger.close()] == kinds


def test_a_connection_that_ended_is_owed_nothing_more() -> None:
    """What it got before that was without a gap."""
    books = Books()
    books.send(3)
    books.receive(1, 2)
    books.ledger.lost(books.stay)
    assert books.kinds == []


def test_a_gap_before_the_end_of_a_connection_is_a_loss() -> None:
    """The end excuses only what follows."""
    books = Books()
    books.send(3)
    books.receive(1, 3)
    books.ledger.lost(books.stay)
    assert books.kinds == ["lost"]


def test_somebody_who_is_unsure_may_miss_messages_but_not_their_order() -> None:
    """Until it is there again; from then on everything is due."""
    books = Books()
    books.ledger.unsure(books.stay)
    books.send(3)
    books.receive(1, 3)
    books.ledger.joined(books.stay)
    books.send(2)
    books.receive(5)
    assert books.kinds == ["lost"]


def test_a_sender_may_be_left_out_of_its_own_messages() -> None:
    """It waits for none of them, and gets none."""
    books = Books()
    own = books.come("mike", without=books.sender)
    books.send(1)
    books.receive(1)
    assert not books.ledger.missing()
    books.receive(1, stay=own)
    books.ledger.leaving(own)
    books.ledger.left(own)
    assert books.kinds == ["echoed"]


def test_a_message_of_another_place_is_invented() -> None:
    """Nobody sent it here."""
    books = Books()
    elsewhere = books.ledger.joining("mike", Place("elsewhere"))
    books.ledger.joined(elsewhere)
    books.send(1)
    books.receive(1)
    books.receive(1, stay=elsewhere)
    assert books.kinds == ["invented"]


def test_a_sender_that_begins_later_is_heard_from_its_first_message() -> None:
    """By those who were there before it."""
    books = Books()
    late = books.ledger.sender("t", ROOM)
    books.ledger.sent(late)
    books.ledger.sent(late)
    books.ledger.accepted(late)
    books.ledger.receive(books.stay, "t", 2)
    assert books.kinds == ["lost"]


def test_a_sender_that_leaves_without_its_own_messages_has_lost_nothing() -> None:
    """It was never owed them."""
    books = Books()
    own = books.come("mike", without=books.sender)
    books.send(1)
    books.receive(1)
    books.ledger.leaving(own)
    books.ledger.left(own)
    assert books.kinds == []
