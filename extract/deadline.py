"""Work that may take only so long. What hangs in a decoder cannot be stopped: it is left behind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late  # the built-in one from Python 3.11 on
from threading import TIMEOUT_MAX, Thread
from typing import TypeVar

from affuse.errors import AffuseError

A = TypeVar("A")


class OverdueError(AffuseError):
    """The time given, in seconds, was not enough."""

    def __init__(self, seconds: float):
        super().__init__(f"It was given up after {seconds:.0f} s.")
        self.seconds = seconds


def within(seconds: float, work: Callable[[], A]) -> A:
    """What `work` gives or raises, in a thread that does not keep the process from ending. Raises OverdueError when the
    seconds are over."""
    done: Future[A] = Future()

    def run() -> None:
        try:
            made = work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(made)

    Thread(target=run, name="timed", daemon=True).start()
    try:
        return done.result(min(seconds, TIMEOUT_MAX))
    except Late:
        if done.done():
            raise
        raise OverdueError(seconds) from None
