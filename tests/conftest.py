"""What holds in every ring."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Have Ctrl-C mean what it means in a terminal, for the tests and for what they start.

    A shell has what it runs in the background ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
