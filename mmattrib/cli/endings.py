"""How the program ends when it is told to: Ctrl-C, SIGTERM, SIGHUP, and output that nobody reads.

Each ends it the same way: by an exception, so that whatever was begun is put back and removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # as shells report a program that Ctrl-C ended
_ENDING = ("SIGTERM", "SIGHUP")


class Ended(KeyboardInterrupt):
    """A signal asked the program to end; whoever handles Ctrl-C handles it."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(error: BaseException) -> int:
    """What the program returns to its shell: 128 and the number of the signal that ended it."""
    seen: BaseException | None = error
    while seen is not None:  # click wraps Ctrl-C in an exception of its own
        if isinstance(seen, Ended):
            return 128 + seen.number
        seen = seen.__cause__ or seen.__context__
    return INTERRUPTED


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise :class:`Ended` at SIGTERM and SIGHUP; a signal that is ignored (``nohup``) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    kept = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) == signal.SIG_DFL}

    def end(number: int, _frame: FrameType | None) -> None:
        for each in kept:
            signal.signal(each, signal.SIG_IGN)  # a second one must not cut the tidying short
        raise Ended(number)

    for number in kept:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def forget_output() -> None:
    """Let what is still to be written go nowhere: standard output is closed, or its disk is full.

    Python would otherwise complain when it flushes at the end.
    """
    with contextlib.suppress(Exception):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
