"""Rows from several threads, computed together: what fills the batches of a GPU when each video alone would not.

On CPU nothing is gathered: there the bytes of a video must not depend on which others run beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

A, B = TypeVar("A"), TypeVar("B")


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
