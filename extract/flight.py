"""What the workers of a dask scheduler are given: what all videos share, once, and tasks, a few at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from uuid import uuid4

from distributed import Client, Future, WorkerPlugin, as_completed
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from affuse.extract.run import Recipe
from affuse.extract.summary import Receipt
from affuse.extract.videos import Job
from affuse.features.record import Provenance
from affuse.version import VERSION

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
        self.version = VERSION


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
        except Exception as error:
            if type(error) is Exception:  # what a worker sends in place of one that cannot be sent
                raise RuntimeError(str(error)) from None
            raise
    yield name
    with suppress(OSError, RuntimeError, ValueError, *LOST):  # a scheduler that serves others, too, forgets them
        client.unregister_worker_plugin(name)


class Flight:
    """Tasks handed out, a few for each worker, many in one message: a scheduler keeps all that it is given, and says
    what it does of it. `task` is called with a job and the name of the run's orders. `welcome` is called when workers
    have joined, may refuse them by an error, and gives the resources that a task needs from then on.

    Iterating gives each job that has come to an end with its receipt, and hands out more as there is room. A job whose
    worker died is tried once more when nothing else runs; one whose worker died again has None.
    """

    def __init__(
        self,
        client: Client,
        jobs: Iterable[Job],
        task: Callable[[Job, str], Receipt],
        orders: str,
        welcome: Callable[[], dict[str, float]] = dict,
    ):
        self.client, self.task, self.orders, self.welcome = client, task, orders, welcome
        self.waiting = iter(jobs)
        self.futures: dict[Future, Job] = {}
        self.limit, self.looked = 0, -math.inf
        self.workers: set[str] = set()
        self.resources: dict[str, float] = {}

    def __iter__(self) -> Iterator[tuple[Job, Receipt | None]]:
        suspects = []
        try:
            for job, receipt in self._together():
                if receipt is None:
                    suspects.append(job)
                else:
                    yield job, receipt
            for job in suspects:
                yield from self._receipts(self._hand_out([job]))
        finally:
            for future in self.futures:
                future.release()

    def _together(self) -> Iterator[tuple[Job, Receipt | None]]:
        ended = as_completed(loop=self.client.loop)
        while True:
            limit = self._limit()
            room = limit - len(self.futures)
            if room >= limit // 4 and (jobs := list(islice(self.waiting, room))):
                ended.update(self._hand_out(jobs))
            if not self.futures:
                return
            yield from self._receipts(ended.next_batch())

    def _hand_out(self, jobs: list[Job]) -> list[Future]:
        futures = self.client.map(
            self.task, [job.absolute() for job in jobs], orders=self.orders, resources=self.resources, pure=False
        )
        self.futures.update(zip(futures, jobs, strict=True))
        return futures

    def _receipts(self, futures: list[Future]) -> Iterator[tuple[Job, Receipt | None]]:
        """Fetched together where all went well."""
        together = None
        with suppress(KilledWorker):
            if all(future.status == "finished" for future in futures):
                together = self.client.gather(futures)
        for future, receipt in zip(futures, together or map(_receipt, futures), strict=True):
            future.release()
            yield self.futures.pop(future), receipt

    def _limit(self) -> int:
        """As many as there may be: workers come and go."""
        if time.monotonic() - self.looked > WATCH:
            threads = self.client.nthreads()
            if threads.keys() - self.workers:
                self.resources = self.welcome()
            self.workers = set(threads)
            self.limit, self.looked = max(LEAST, AHEAD * sum(threads.values())), time.monotonic()
        return self.limit


def _receipt(future: Future) -> Receipt | None:
    try:
        return future.result()
    except KilledWorker:
        return None
