"""What the workers of a dask scheduler are given: what all videos share, once, and tasks, a few at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from uuid import uuid4

from distributed import Client, Future, WorkerPlugin, as_completed
from distributed.comm.core import CommClosedError

from affuse.extract.run import Recipe
from affuse.extract.videos import Job
from affuse.features.record import Provenance

LOST = (CommClosedError, CancelledError)
PATIENCE = 5  # s in which a scheduler must answer
AHEAD = 3  # tasks handed out for each thread of a worker
LEAST = 64  # tasks handed out in any case, for workers that join before the next one ends
WATCH = 2  # s between two looks at who works for it


class Orders(WorkerPlugin):
    """What all tasks of a run have in common: each worker is told once, and whoever joins later is too. `store` is an
    absolute path."""

    def __init__(self, recipe: Recipe, store: Path, provenance: Provenance):
        self.recipe, self.store, self.provenance = recipe, store, provenance


@contextmanager
def told(client: Client, orders: Orders) -> Iterator[str]:
    """The name under which all workers know these orders meanwhile."""
    name, deadline = f"affuse-{uuid4().hex}", time.monotonic() + PATIENCE
    while True:
        try:
            client.register_plugin(orders, name=name)
            break
        except OSError as error:  # a worker that goes just now
            if time.monotonic() > deadline:
                raise CommClosedError(str(error)) from error
            time.sleep(0.1)
    yield name
    with suppress(OSError, RuntimeError, ValueError, *LOST):  # a scheduler that serves others, too, forgets them
        client.unregister_worker_plugin(name)


class Flight:
    """Tasks handed out, a few for each worker: a scheduler keeps all that it is given, and says what it does of it.

    Iterating gives each future that is done with its job, and hands out more as others come to an end.
    """

    def __init__(self, client: Client, jobs: list[Job], submit: Callable[[Job], Future]):
        self.client, self.submit = client, submit
        self.waiting = iter(jobs)
        self.futures: dict[Future, Job] = {}
        self.limit, self.looked = 0, -math.inf

    def __iter__(self) -> Iterator[tuple[Future, Job]]:
        done = as_completed(loop=self.client.loop)
        while True:
            for job in islice(self.waiting, max(0, self._limit() - len(self.futures))):
                future = self.submit(job)
                self.futures[future] = job
                done.add(future)
            if not self.futures:
                return
            future = next(done)
            yield future, self.futures.pop(future)

    def _limit(self) -> int:
        """As many as there may be: workers come and go."""
        if time.monotonic() - self.looked > WATCH:
            threads = sum(self.client.nthreads().values())
            self.limit, self.looked = max(LEAST, AHEAD * threads), time.monotonic()
        return self.limit

    def release(self) -> None:
        for future in self.futures:
            future.release()
