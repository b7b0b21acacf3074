"""Sends every case to the servers it is meant for, and judges what came back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from tests.conformance import closing, framing, limits, utf8
from tests.conformance.cases import Case, Ends, Pause, Send, Verdict, Wait, close, normal_close
from tests.conformance.driver import Driver, connected
from tests.conformance.servers import EchoSocket, Running, serving

from backbeat.server.socket import Socket

AT_ONCE: Final = 16
"""Connections at a time."""
SMALL: Final = 4096
"""Bytes of a case that is also sent frame by frame and byte by byte, however the suite cuts it."""
PAUSE: Final = 0.1
"""Seconds a server has to refuse what it could refuse already."""

CASES: Final = sorted(
    chain(
        framing.messages(),
        framing.pings(),
        framing.reserved_bits(),
        framing.opcodes(),
        framing.fragmentation(),
        utf8.fragmented(),
        utf8.fail_fast(),
        utf8.decoding(),
        closing.handshake(),
        closing.payloads(),
        closing.codes(),
        limits.large(),
        limits.in_fragments(),
        limits.in_pieces(),
        limits.round_trips(),
    ),
    key=lambda case: case.key,
)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case, over all servers and all ways to cut it.

    Attributes:
        case: the case.
        verdict: the worst of its verdicts.
        note: what was wrong, or what there is to say.
    """

    case: Case
    verdict: Verdict
    note: str = ""


def variants(case: Case) -> list[Case]:
    """The case as the suite cuts it; a small one also frame by frame and byte by byte."""
    sends = [step for step in case.steps if isinstance(step, Send)]
    if sum(len(data) for step in sends for data in step.frames) > SMALL:
        return [case]
    return [case, *(_chopped(case, chop) for chop in (-1, 1) if any(step.chop != chop for step in sends))]


def _chopped(case: Case, chop: int) -> Case:
    steps = tuple(replace(step, chop=chop) if isinstance(step, Send) else step for step in case.steps)
    return replace(case, steps=steps)


async def run(cases: Iterable[Case] = CASES) -> list[Result]:
    """Run cases, one after the other, each in all its ways at once."""
    chosen = list(cases)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case, server: Running) -> tuple[Verdict, str]:
        async with slots, connected(server, Driver) as driver:
            pauses = await _play(case, driver)
            return judge(case, driver, pauses)

    async with servers({case.max_frame for case in chosen}) as (echoing, product):
        judged: list[Result] = []
        for case in chosen:
            targets = [echoing[case.max_frame]] + ([] if case.wants_echo else [product])
            outcomes = await asyncio.gather(*(one(each, on) for each in variants(case) for on in targets))
            judged.append(Result(case, *max(outcomes, key=lambda outcome: list(Verdict).index(outcome[0]))))
        return judged


@asynccontextmanager
async def servers(sizes: Iterable[int]) -> AsyncIterator[tuple[dict[int, Running], Running]]:
    """Start an echoing server for each limit, and one as it is."""
    async with AsyncExitStack() as stack:
        echoing = {
            size: await stack.enter_async_context(serving(EchoSocket, max_frame_bytes=size)) for size in sizes
        }
        yield echoing, await stack.enter_async_context(serving(Socket))


async def _play(case: Case, driver: Driver) -> int:
    """Do what a case says, up to the end of the connection; return the pauses the server let pass."""
    pauses = 0
    for step in case.steps:
        if driver.closed is not None or driver.ended:
            break
        match step:
            case Send(frames, chop):
                for data in frames if chop < 0 else [b"".join(frames)]:
                    await driver.write(data, len(data) if chop < 0 else chop)
            case Wait(frames):
                await driver.until_heard(frames)
            case Pause():
                await asyncio.sleep(PAUSE)
                pauses += driver.closed is None
    if case.ends is Ends.CLIENT:
        await driver.until_heard(len(case.answer))
        await driver.write(normal_close())
    await driver.until_closed()
    if case.ends is Ends.SERVER and driver.closed is not None:
        await driver.write(close(driver.closed))
    await driver.until_ended()
    return pauses


def judge(case: Case, driver: Driver, pauses: int) -> tuple[Verdict, str]:
    """Compare what came back with what had to."""
    faults = list(_faults(case, driver))
    if case.informational:
        note = "; ".join(faults) or f"{len(driver.heard)} messages came back, then close {driver.closed}"
        return Verdict.INFORMATIONAL, note
    if faults:
        return Verdict.FAILED, "; ".join(faults)
    if pauses > case.pauses:
        return Verdict.NON_STRICT, case.reason
    return Verdict.OK, ""


def _faults(case: Case, driver: Driver) -> Iterable[str]:
    if tuple(driver.heard) != case.answer:
        yield f"came back: {_short(driver.heard)}"
    if driver.closed not in case.codes:
        yield f"closed with {driver.closed}"
    if driver.after_close:
        yield f"{len(driver.after_close)} frames after the close frame"
    if driver.ended != "eof":
        yield f"the connection ended so: {driver.ended}"


def _short(heard: Sequence[tuple[int, bytes]]) -> str:
    return ", ".join(f"{opcode:x} {payload[:20]!r}" for opcode, payload in heard[:5]) or "nothing"
