"""Running other people's code at import, in hooks and in factories, so that it disturbs nothing.

What it prints on standard output goes to standard error, since standard output may be JSON that a
program reads. What it does to the working folder, the filters of warnings, the handlers of signals,
the locale and torch's default type is put back. Not put back: environment variables, handlers of
``logging``, seeds, the number of threads, patched functions, threads that it starts. Code that
calls ``os._exit``, or that never returns, cannot be contained within a process.
"""

from __future__ import annotations

import contextlib
import locale
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGALRM", "SIGCHLD")


@contextmanager
def contained() -> Iterator[None]:
    """Send standard output to standard error inside, and put back what the process shares."""
    with ExitStack() as stack:
        for put_back in (_folder(), _warnings(), _signals(), _locale(), _torch()):
            stack.callback(put_back)
        stack.enter_context(stdout_on_stderr())
        yield


@contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """Let what is written on standard output inside appear on standard error.

    The file descriptor is turned too, for C libraries and child processes, where
    ``sys.stdout`` stands for it.
    """
    usual = sys.stdout
    with ExitStack() as stack:
        if _descriptor(usual) == 1 and _descriptor(sys.stderr) == 2:
            usual.flush()
            stack.enter_context(_descriptor_turned(1, 2))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


_hushing = False


def set_hushing(on: bool) -> None:
    """Say whether :func:`hushed` acts: in a program of one's own, such as the command line.

    The descriptor of standard error belongs to all threads of a process, so that a library must not
    take it away from its host.
    """
    global _hushing
    _hushing = on


@contextmanager
def hushing() -> Iterator[None]:
    """Let :func:`hushed` act inside."""
    before = is_hushing()
    set_hushing(True)
    try:
        yield
    finally:
        set_hushing(before)


def is_hushing() -> bool:
    """Whether :func:`hushed` acts, for processes that share the work."""
    return _hushing


@contextmanager
def hushed() -> Iterator[None]:
    """Drop what C libraries write on standard error while they decode, where that is wanted.

    Nothing else may be said inside.
    """
    if not _hushing:
        yield
        return
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with _descriptor_turned(2, nowhere):
            yield
    finally:
        os.close(nowhere)


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):  # no file: a buffer, or closed
        return None


@contextmanager
def _descriptor_turned(number: int, to: int) -> Iterator[None]:
    try:
        kept = os.dup(number)
    except OSError:  # closed
        yield
        return
    try:
        os.dup2(to, number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def _folder() -> Callable[[], None]:
    try:
        before = Path.cwd()
    except OSError:  # it was removed
        return _nothing

    def put_back() -> None:
        with contextlib.suppress(OSError):
            os.chdir(before)

    return put_back


def _warnings() -> Callable[[], None]:
    filters, shown = list(warnings.filters), warnings.showwarning

    def put_back() -> None:
        if list(warnings.filters) != filters:
            warnings.resetwarnings()  # which also makes Python forget what it cached
            warnings.filters[:] = filters  # type: ignore[index]
        warnings.showwarning = shown

    return put_back


def _signals() -> Callable[[], None]:
    if threading.current_thread() is not threading.main_thread():
        return _nothing  # only the main thread can set them
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return put_back


def _locale() -> Callable[[], None]:
    before = locale.setlocale(locale.LC_ALL)

    def put_back() -> None:
        if locale.setlocale(locale.LC_ALL) != before:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, before)

    return put_back


def _torch() -> Callable[[], None]:
    torch: Any = sys.modules.get("torch")
    found = None
    if torch is not None:
        found = torch.get_default_dtype(), torch.is_grad_enabled()

    def put_back() -> None:
        torch: Any = sys.modules.get("torch")
        if not hasattr(torch, "set_default_dtype"):  # not imported, or only in part
            return
        dtype, gradients = found or (torch.float32, True)
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.is_grad_enabled() != gradients and not torch.is_inference_mode_enabled():
            torch.set_grad_enabled(gradients)

    return put_back


def _nothing() -> None:
    """There is nothing to put back."""
