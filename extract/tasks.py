"""Dask as the engine: what is handed to its workers, and what becomes of it.

Tasks carry paths; a worker loads the networks once, writes the shard itself and returns a receipt. A video whose
worker died is tried once more when nothing else runs, and then recorded as failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from socket import gethostname

from distributed import Client, as_completed
from distributed.scheduler import KilledWorker

from extract.absent import undecodable
from extract.cluster import LOST
from extract.extractor import Extractor
from extract.inputs import Job
from extract.schedule import Engine
from extract.work import Receipt, Recipe, process, receipt
from features.errors import AffuseError
from features.layout import shard_name
from features.record import Provenance, Source, how_they_differ
from features.store import SHARDS, FeatureStore

PATIENCE = 5  # s after which a shard that was written must be seen here too
DIED = (
    "the process that extracted it died, and died again when it was tried alone: out of memory, or a crash of the "
    "decoder"
)
_building = threading.Lock()


def on_dask(client: Client, recipe: Recipe, extractor: Extractor, store: FeatureStore) -> Engine:
    """The engine that hands every video to a worker of `client`. `extractor` is this process's own, of the same
    recipe: the workers' features must be as its would be."""

    def submit(job: Job):
        return client.submit(
            work, job.absolute(), recipe, store.path.absolute(), extractor.provenance, pure=False
        )

    def engine(jobs: list[Job]) -> Iterator[Receipt]:
        futures = {submit(job): job for job in jobs}
        try:
            suspects = []
            for future in as_completed(list(futures)):
                job = futures.pop(future)
                try:
                    yield _seen(future.result(), store)
                except KilledWorker:
                    suspects.append(job)
            for job in suspects:
                try:
                    yield _seen(submit(job).result(), store)
                except KilledWorker:
                    yield _give_up(job, extractor, store)
        except (ImportError, RuntimeError) as error:
            reason = error.__cause__ or error
            raise AffuseError(
                f"The scheduler or a worker could not read or do its task ({reason}). Both need affuse installed, in "
                "the same version as here."
            ) from None
        except LOST:
            raise AffuseError(
                "The connection to the scheduler was lost. Every finished video is kept: start the scheduler and its "
                "workers again and run the same command."
            ) from None
        finally:
            for future in futures:
                future.release()

    return engine


def work(job: Job, recipe: Recipe, store: Path, provenance: Provenance) -> Receipt:
    """The task: one video, in whichever worker it lands.

    Raises AffuseError where this worker's features would not be those of `provenance`, or would go to another disk.
    """
    host = gethostname()
    if not (store / SHARDS).is_dir():
        raise AffuseError(
            f"A worker on {host} does not see the store {store}: all machines must see it under the same path."
        )
    try:
        with _building:
            extractor = _extractor(recipe)
        if differing := how_they_differ(provenance, extractor.provenance):
            raise AffuseError(
                f"other weights or another version than where the run was started: {'; '.join(differing)}. Give both "
                "the same."
            )
        extractor.load()
    except AffuseError as error:
        raise AffuseError(f"On a worker on {host}: {error}") from None
    with extractor.turns:
        made = process(job, extractor, FeatureStore(store, create=True))
    if made.failure and not job.path.exists():
        return replace(made, failure=f"{made.failure} (Said by a worker on {host}.)")
    return made


def _seen(made: Receipt, store: FeatureStore) -> Receipt:
    """The receipt of a video. Raises AffuseError where its shard does not turn up here."""
    deadline = time.monotonic() + PATIENCE  # a network's file system may take a while
    shard = store.path / SHARDS / shard_name(made.id)
    while made.statuses is not None and not shard.is_file():
        if time.monotonic() > deadline:
            raise AffuseError(
                f"{made.id} was extracted, but not into {store.path.absolute()} as this machine sees it: all machines "
                "must see the store under the same path, on the same disk."
            )
        time.sleep(0.1)
    return made


@lru_cache(maxsize=1)
def _extractor(recipe: Recipe) -> Extractor:
    """The worker's networks, loaded once and kept."""
    return recipe.extractor()


def _give_up(job: Job, extractor: Extractor, store: FeatureStore) -> Receipt:
    try:
        source = Source(job.name, job.size, job.digest(), job.mtime_ns)
    except OSError:  # gone meanwhile: there is nothing to keep a record of
        return Receipt(job.id, DIED)
    widths = {part: found.entry.width for part, found in extractor.located.items()}
    video = undecodable(job.id, source, DIED, widths)
    store.write(video, extractor.provenance)
    return receipt(video)
