"""What happens to a blocking client when its process is interrupted, ends, or forks."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

PREAMBLE = """
import os, signal, sys, threading, time, warnings
from backbeat.errors import BackbeatError
from backbeat.sync import RealtimeClient
from backbeat.testing import MemoryServer

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Interrupting(MemoryServer):
    event = None
    def note(self, connection, message):
        if message.event == self.event:
            interrupt()
            return True
        return super().note(connection, message)

server = Interrupting()
"""


def run(*script: str) -> tuple[list[str], str]:
    """Run a script, given in parts, to its end; what it printed, and what it complained about."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "\n".join([PREAMBLE, *map(dedent, script)])],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_ctrl_c_interrupts_a_call_and_leaves_the_client_usable() -> None:
    """A call, an iteration and `poll`; then the same work, no event is lost, and closing is clean."""
    output, complaints = run("""
        client = RealtimeClient("ws://memory", "key", transport=server, dispatch="inline")
        channel = client.channel("room", ack=True).subscribe()
        stream = channel.broadcasts()

        def tell():
            client.io.run(server.broadcast, "room", "n", {"n": 1})

        def wait_then_interrupt(waits):
            while not waits():
                time.sleep(0.001)
            interrupt()

        def interrupted(call, waits=None):
            if waits is not None:
                threading.Thread(target=wait_then_interrupt, args=(waits,)).start()
            try:
                call()
            except KeyboardInterrupt:
                print("interrupted", client.state, channel.state)

        server.event = "broadcast"
        interrupted(lambda: channel.send("n", {}))
        server.event = None
        print(channel.send("n", {}).acknowledged)
        interrupted(stream.next, stream._turn.locked)
        tell()
        print(stream.next(5).payload)
        polling = threading.Event()
        channel.on_broadcast("n", lambda event: interrupt())
        tell()
        interrupted(lambda: client.poll(5))
        client.close()
        print(client.state, threading.active_count())
    """)
    interrupted = "interrupted open joined"
    assert output == [interrupted, "True", interrupted, "{'n': 1}", interrupted, "closed 1"]
    assert complaints == ""


def test_ctrl_c_interrupts_a_call_when_another_thread_takes_the_signal() -> None:
    """As when it comes just before the call begins to wait: nothing wakes the thread that waits."""
    output, complaints = run("""
        class Raising(MemoryServer):
            def note(self, connection, message):
                if message.event == "broadcast":
                    signal.raise_signal(signal.SIGINT)
                    return True
                return super().note(connection, message)

        client = RealtimeClient("ws://memory", "key", transport=Raising(), push_timeout=3600)
        channel = client.channel("room", ack=True).subscribe()
        try:
            channel.send("n", {})
        except KeyboardInterrupt:
            print("interrupted", client.state)
        client.close()
    """)
    assert output == ["interrupted open"]
    assert complaints == ""


@pytest.mark.parametrize(
    "unfinished",
    [
        pytest.param("client.channel('room').subscribe()", id="a subscription"),
        pytest.param(
            """
            def wait(event):
                begun.set()
                threading.Event().wait()

            client.channel("room").subscribe().on_broadcast("hi", wait)
            client.io.run(server.broadcast, "room", "hi", {})
            begun.wait()
            """,
            id="a callback that never returns",
        ),
        pytest.param(
            """
            def token():
                begun.set()
                threading.Event().wait()

            client = RealtimeClient("ws://memory", "secret", transport=server, token=token)
            client.connect()
            begun.wait()
            """,
            id="a token function that never returns",
        ),
        pytest.param(
            """
            server.ignore("phx_leave")
            client.channel("room").subscribe()
            """,
            id="a server that does not answer",
        ),
    ],
)
def test_a_program_that_forgets_to_close_ends_with_a_warning(unfinished: str) -> None:
    """Whatever still runs, the interpreter waits for none of it."""
    begin = """
        begun = threading.Event()
        client = RealtimeClient("ws://memory", "secret", transport=server)
    """
    output, complaints = run(begin, unfinished, "print('end')")
    assert output == ["end"]
    assert "ResourceWarning: unclosed RealtimeClient of ws://memory" in complaints
    assert "Traceback" not in complaints
    assert "secret" not in complaints


def test_after_a_fork_the_child_is_told_and_the_parent_goes_on() -> None:
    """The child's copy is fatal, says why, and can be made anew; one that had not started yet just works."""
    output, complaints = run("""
        client = RealtimeClient("ws://memory", "key", transport=server)
        unused = RealtimeClient("ws://memory", "key", transport=server)
        channel = client.channel("room", ack=True).subscribe()
        stream = channel.broadcasts()
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 advises against what is tested here
        child = os.fork()
        if child == 0:
            print(client.state, client.is_connected, channel.state)
            for call in (client.ping, client.explain, lambda: channel.send("n", {}), lambda: next(stream)):
                try:
                    call()
                except BackbeatError as error:
                    print(error.code, "recreate()" in error.hint)
            stream.close()
            client.close()
            with client.recreate() as own, own.channel("room"), unused, unused.channel("room"):
                print(own.state, unused.state)
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(client.state, channel.send("n", {}).acknowledged)
        client.close()
    """)
    assert output == ["fatal False closed", *["ClientForked True"] * 4, "open open", "0", "open True"]
    assert complaints == ""
