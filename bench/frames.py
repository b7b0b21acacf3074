"""Our frame parser against the sans-I/O parser of `websockets`, in the same run.

    python bench/frames.py

Prints how long each takes for the same bytes (the best of several rounds, taken in turns) and the ratio. Ours
checks UTF-8 and joins fragments; `websockets` leaves both to its connections, so the comparison favours it.
"""

from collections.abc import Callable
from time import perf_counter

from websockets.protocol import State
from websockets.server import ServerProtocol

from backbeat.websocket.frames import FrameParser, Opcode, client_frame

ROUNDS = 15
MAX_MESSAGE = 5_000_000
MASK = b"\x37\xfa\x21\x3d"


def ours(pieces: list[bytes]) -> int:
    """Parse with our parser; return the number of events."""
    parser = FrameParser(max_message=MAX_MESSAGE)
    return sum(len(parser.feed(piece)) for piece in pieces)


def theirs(pieces: list[bytes]) -> int:
    """Parse with the parser of `websockets`; return the number of frames."""
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)
    count = 0
    for piece in pieces:
        protocol.receive_data(piece)
        count += len(protocol.events_received())
    return count


def seconds(parse: Callable[[list[bytes]], int], pieces: list[bytes], expected: int) -> float:
    """Return the seconds one call takes."""
    start = perf_counter()
    count = parse(pieces)
    elapsed = perf_counter() - start
    if count != expected:
        raise RuntimeError(f"{parse.__name__} found {count} messages instead of {expected}")
    return elapsed


def compare(name: str, pieces: list[bytes], expected: int) -> None:
    """Print the best round of both, and how many times as long theirs takes."""
    rounds = [(seconds(ours, pieces, expected), seconds(theirs, pieces, expected)) for _ in range(ROUNDS)]
    own, other = (min(column) * 1e6 for column in zip(*rounds, strict=True))
    print(f"{name:45} ours {own:8.0f} us   websockets {other:8.0f} us   ratio {other / own:5.1f}")


def in_pieces(data: bytes, size: int) -> list[bytes]:
    """Cut the bytes into pieces of this size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def main() -> None:
    """Run the comparisons."""
    small = client_frame(Opcode.TEXT, b"x" * 50, MASK)
    accented = client_frame(Opcode.TEXT, "schön ♫ ".encode() * 4, MASK)
    large = client_frame(Opcode.TEXT, b"x" * 1_000_000, MASK)
    compare("1,000 texts of 50 bytes, one piece", [small * 1000], 1000)
    compare("1,000 texts of 50 bytes, a piece each", [small] * 1000, 1000)
    compare("1,000 texts beyond ASCII, one piece", [accented * 1000], 1000)
    compare("one text of 1 MB, pieces of 64 KiB", in_pieces(large, 64 * 1024), 1)
    compare("one text of 1 MB, pieces of 1,000 bytes", in_pieces(large, 1000), 1)


if __name__ == "__main__":
    main()
