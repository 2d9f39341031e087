"""A run, and one video's worth of work, the same wherever it is done.

Every video is on its own, so that one cannot take others along: path in, shard written, receipt out.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from dask.system import CPU_COUNT

from affuse.device import gpu_lost
from affuse.errors import AffuseError, RecordError, first_line
from affuse.extract.extractor import TIME_LIMIT, Extractor
from affuse.extract.heap import save_memory
from affuse.extract.networks import extraction_device, locate_backbones
from affuse.extract.resume import remaining
from affuse.extract.settings import ExtractSettings
from affuse.extract.summary import Receipt, Summary
from affuse.extract.videos import Job
from affuse.features.store import FeatureStore


class GpuLostError(AffuseError):
    """The GPU is of no more use to this process; to another one it may be."""


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to extract as the others do. Paths are those the process itself sees; threads None are
    as many as it has cores; time_limit is how many times its length a video may take."""

    settings: ExtractSettings
    weights_dir: Path | None
    allow_untrained: bool
    device: str
    threads: int | None
    time_limit: float = TIME_LIMIT

    def extractor(self) -> Extractor:
        """Find the weights; networks are built at their first use. Raises AffuseError where weights are missing."""
        save_memory()
        located = locate_backbones(self.settings, self.weights_dir, self.allow_untrained)
        threads = self.threads or CPU_COUNT
        return Extractor(self.settings, located, extraction_device(self.device), threads, self.time_limit)


def process(job: Job, extractor: Extractor, store: FeatureStore) -> Receipt:
    """Extract one video into the store.

    Raises AffuseError for what would fail every video alike: weights that do not fit, a store that cannot be
    written, a lost GPU.
    """
    extractor.load()
    try:
        records = extractor(job)
    except AffuseError as error:
        return Receipt(job.id, str(error))
    except OSError as error:
        why = f"{job.path} cannot be read: {error.strerror or error}. Check its permissions and its disk."
        return Receipt(job.id, why)
    except Exception as error:
        if gpu_lost(error):
            raise GpuLostError(
                f"The GPU was lost to this process at {job.path} ({first_line(error)}). Every finished video is kept: "
                "run the same command again, with --workers 1 in a process that is started anew where that happens."
            ) from error
        why = f"{job.path} made the extraction fail ({type(error).__name__}: {error}). Please report this."
        return Receipt(job.id, why, details=traceback.format_exc())
    try:
        store.replace(job.id, records, extractor.provenance)
    except RecordError as error:
        return Receipt(job.id, str(error))
    return Receipt.of(job, records[0])


Engine = Callable[[list[Job]], Iterable[Receipt]]  # does the work, and hands out receipts as videos finish


def here(extractor: Extractor, store: FeatureStore) -> Engine:
    """The engine that works in this process: one video after another, or as many at once as the device is for."""

    def one_by_one(jobs: list[Job]) -> Iterator[Receipt]:
        return (process(job, extractor, store) for job in jobs)

    def side_by_side(jobs: list[Job]) -> Iterator[Receipt]:
        extractor.halted.clear()
        kernel_threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(extractor.at_once, "video")
        try:
            for future in as_completed([pool.submit(process, job, extractor, store) for job in jobs]):
                yield future.result()
        except BaseException:  # the run is called off, or its reader has left
            extractor.halted.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            torch.set_num_threads(kernel_threads)  # videos side by side cannot each put it back

    return side_by_side if extractor.at_once > 1 else one_by_one


def run(
    jobs: list[Job],
    store: FeatureStore,
    settings_hash: str,
    engine: Engine,
    on_start: Callable[[Counter[str]], None],
    on_done: Callable[[Receipt, Summary], None],
    retry_failed: bool = False,
    verify: bool = False,
    limit: int | None = None,
    on_look: Callable[[int], None] = lambda looked: None,
) -> Summary:
    """Have `engine` extract what is left of `jobs` into the store.

    on_look hears how many videos were looked for in the store; on_start how many are left for which reason; on_done of
    each video that ends, and of the run so far. A video that cannot be decoded is recorded as such and not tried again
    unless `retry_failed`. What the store has is read from end to end only with `verify`. With `limit`, so many of those
    left are extracted, and no more are looked for.
    Raises AffuseError where weights do not fit or the store cannot be written; everything written before stays.
    """
    begin = time.perf_counter()
    store.sweep()
    reasons, failed, looked = remaining(jobs, store, settings_hash, retry_failed, verify, limit, on_look)
    left = {job.id: job for job in jobs[:looked] if job.id in reasons}
    summary = Summary(todo=len(left), bytes_todo=sum(map(_size, left.values())), failed=failed, earlier=len(failed))
    summary.kept = looked - len(left)
    on_start(Counter(reasons.values()))
    for receipt in engine([*left.values()]) if left else ():
        summary.add(receipt, job := left[receipt.id], _size(job))
        summary.seconds = time.perf_counter() - begin
        on_done(receipt, summary)
    summary.seconds = time.perf_counter() - begin
    return summary


def _size(job: Job) -> int:
    try:
        return job.size
    except OSError:  # unreadable; extraction will say so
        return 0
