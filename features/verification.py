"""Reading records from end to end, or a share of them, in as many processes as are wanted.

Processes and not threads: HDF5 lets one thread of a process in at a time.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from affuse.console import Progress
from affuse.errors import AffuseError, UsageError, counted
from affuse.features.place import Place, name_of
from affuse.features.seal import Problem
from affuse.features.shard import verify_shard
from affuse.processes import deaf_to_ctrl_c, end_with_parent

BATCH = 16  # shards that a process is given at once
FEW = 64  # shards that are sooner read than processes have started


@dataclass(frozen=True)
class Verification:
    """How many records were read from end to end, of how many, and what is wrong with them."""

    checked: int
    of: int
    problems: list[Problem]


def share_of(text: str) -> float:
    """ "1%" → 0.01. Raises UsageError for what is no percentage above 0 and up to 100."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) ?%", text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise UsageError(f"A sample is a share in percent, above 0 and up to 100, such as 1%, not {text!r}.")
    return share


def verify_files(
    files: list[Place],
    share: float = 1.0,
    seed: int = 0,
    processes: int = 1,
    progress: Progress = lambda line, failure, last: None,
) -> Verification:
    """Read the shards in these places, or that share of them (one, at least), drawn by `seed`; problems are in their
    order.

    Raises UsageError for a newer format, AffuseError where a process dies.
    """
    drawn = random.Random(seed).sample(files, math.ceil(len(files) * share)) if share < 1 else files
    chosen = sorted(drawn, key=name_of)
    batches = [chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    many = min(processes, len(batches)) if len(chosen) > FEW else 1
    found: dict[int, list[Problem]] = {}
    done = 0
    for number, problems in _in_processes(batches, many) if many > 1 else enumerate(map(_verify, batches)):
        found[number] = problems
        done += len(batches[number])
        progress(f"{done} of {counted(len(chosen), 'video')} read", None, done == len(chosen))
    return Verification(len(chosen), len(files), [problem for number in sorted(found) for problem in found[number]])


def _verify(batch: list[Place]) -> list[Problem]:
    return [problem for path in batch for problem in verify_shard(path)]


def _in_processes(batches: list[list[Place]], processes: int) -> Iterator[tuple[int, list[Problem]]]:
    """The number of each batch and its problems, as they are done."""
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent)
    try:
        with deaf_to_ctrl_c():
            futures = {pool.submit(_verify, batch): number for number, batch in enumerate(batches)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise AffuseError(
            "A process that read the store died, as when memory runs out. Nothing was changed: run the same command "
            "again when the machine is less busy."
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
