"""Threads that share the work of one video, and the seconds that each stage of it took.

Every lane computes with one kernel thread. What comes out then depends neither on how many lanes there are nor on
which finishes first, and batches small enough for the cache are as fast as large ones on many threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from extract.memory import HOLES

A, B = TypeVar("A"), TypeVar("B")
AHEAD = 2  # items per lane that are begun before the first is asked for


class Lanes:
    """A pool of `threads` lanes, as a context; leaving it by an error drops what has not begun.

    seconds: per stage, summed over lanes. Once `halted` is set, reading on raises CancelledError.
    """

    def __init__(self, threads: int, halted: threading.Event):
        self.threads, self.halted = threads, halted
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Lanes:
        self._kernel_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(self.threads, "lane")
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self._pool.shutdown(wait=error is None, cancel_futures=True)
        torch.set_num_threads(self._kernel_threads)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def reading(self, stage: str, items: Iterable[A]) -> Iterator[A]:
        """Pass `items` on, counting the time taken to make each."""
        items = iter(items)
        while True:
            if self.halted.is_set():
                raise CancelledError
            with self.timed(stage):
                item = next(items, self)
            if item is self:
                return
            yield item

    def submit(self, function: Callable[..., B], *given) -> Future[B]:
        def work() -> B:
            torch.set_num_threads(1)  # each time: numba, which Whisper uses, sets its thread's number too
            made = function(*given)
            HOLES.give_back(self.threads)
            return made

        return self._pool.submit(work)

    def ordered(self, stage: str, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """What `function` makes of each item, in their order. Only a few items per lane are taken ahead, so that
        memory does not grow with their number."""

        def work(item: A) -> B:
            with self.timed(stage):
                return function(item)

        begun: deque[Future[B]] = deque()
        for item in items:
            begun.append(self.submit(work, item))
            if len(begun) > AHEAD * self.threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
