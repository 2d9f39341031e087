"""Threads that share the work of one video, the seconds that each stage of it took, and rows of several threads
computed together.

Every lane computes with one kernel thread. What comes out then depends neither on how many lanes there are nor on
which finishes first, and batches small enough for the cache are as fast as large ones on many threads. Only on a GPU
are rows of several threads gathered into one batch: on CPU the bytes of a video must not depend on which others run
beside it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import Generic, TypeVar

import torch

from affuse.device import on
from affuse.extract.gpu import beside
from affuse.extract.heap import give_back

A, B = TypeVar("A"), TypeVar("B")
CPU = torch.device("cpu")
AHEAD = 2  # items per lane that are begun before the first is asked for


class Gathered(Generic[A, B]):
    """`function` of at most `size` rows, asked by many threads, computed by one at a time.

    Whoever finds the device free computes the longest-waiting rows, whosever they are; meanwhile those of the others
    pile up for the next batch. Nobody waits for rows that have not been asked for.
    """

    def __init__(self, function: Callable[[list[A]], Iterable[B]], size: int):
        self.function, self.size = function, size
        self._waiting: deque[tuple[A, Future[B]]] = deque()
        self._turn = Lock()

    def __call__(self, rows: Iterable[A]) -> list[B]:
        """The results of these rows, in order. Raises what `function` raises of a batch that holds one of them."""
        asked: list[tuple[A, Future[B]]] = [(row, Future()) for row in rows]
        self._waiting.extend(asked)
        for _, answer in asked:
            while not answer.done():
                with self._turn:
                    if not answer.done():
                        self._compute()
        return [answer.result() for _, answer in asked]

    def _compute(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self.size, len(self._waiting)))]
        try:
            made = list(self.function([row for row, _ in batch]))
        except BaseException as error:
            for _, answer in batch:
                answer.set_exception(error)
            return
        for (_, answer), result in zip(batch, made, strict=True):
            answer.set_result(result)


class Lanes:
    """A pool of `threads` lanes for `device`, as a context; leaving it by an error drops what has not begun.

    seconds: per stage, summed over lanes. Once `halted` is set, or the context left, going on raises CancelledError.
    """

    def __init__(self, threads: int, halted: Event, device: torch.device = CPU):
        self.threads, self.halted, self.device, self.left = threads, halted, device, False
        self.seconds: dict[str, float] = {}
        self._lock = Lock()

    def __enter__(self) -> Lanes:
        self._kernel_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(self.threads, "lane")
        self._aside = ThreadPoolExecutor(1, "aside") if self.device.type == "cuda" else self._pool
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.left = True
        for pool in (self._pool, self._aside):
            pool.shutdown(wait=error is None, cancel_futures=True)
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
            give_back()

    def go_on(self) -> None:
        """Raise CancelledError where nobody wants the rest any more."""
        if self.left or self.halted.is_set():
            raise CancelledError

    def reading(self, stage: str, items: Iterable[A]) -> Iterator[A]:
        """Pass `items` on, counting the time taken to make each."""
        items = iter(items)
        while True:
            self.go_on()
            with self.timed(stage):
                item = next(items, self)
            if item is self:
                return
            yield item

    def submit(self, function: Callable[..., B], *given) -> Future[B]:
        def work() -> B:
            torch.set_num_threads(1)  # each time: numba, which Whisper uses, sets its thread's number too
            with on(self.device):
                return function(*given)

        return self._pool.submit(work)

    def aside(self, function: Callable[..., B], *given) -> Future[B]:
        """The same; on a GPU beside the lanes, on a stream of its own, so that no lane is held back."""

        def work() -> B:
            torch.set_num_threads(1)
            with on(self.device), beside(self.device):
                return function(*given)

        return self._aside.submit(work)

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
