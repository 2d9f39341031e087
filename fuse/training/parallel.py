"""Several trainings over one store: one after another, or side by side in processes, one thread each, which share the
features that this one has read.

Every run has one thread either way, unless the setting `threads` says otherwise, so that its numbers do not depend on
how many are at work. A process is given one training after another and tells of each over a pipe of its own: one that
dies takes nothing of the others with it.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

from dask.system import CPU_COUNT

from affuse.console import Once
from affuse.device import pick_device, threads
from affuse.errors import AffuseError, UsageError
from affuse.fuse.data.corpus import Corpus
from affuse.fuse.data.pool import Pool
from affuse.fuse.data.room import can_share
from affuse.fuse.data.windows import Normalisation
from affuse.fuse.models.registry import find
from affuse.fuse.scoring.estimate import Estimate
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.loading import load_run
from affuse.fuse.training.memory import measured
from affuse.fuse.training.settings import TrainSettings
from affuse.fuse.training.train import load, train
from affuse.processes import deaf_to_ctrl_c, end_with_parent

log = logging.getLogger("affuse")

ALONE = 1  # thread of each of several trainings
WORTH = 0.9  # of the time, from which on more runs than cores at once are worth their memory
OF_DATA = ("modalities", "views", "fps", "validation", "resplit", "held_out", "allow_missing", "label_rate", "target",
           "gaps")  # fmt: skip


class DeathError(AffuseError):
    """The process that trained a run died."""


class Training(NamedTuple):
    """A run that is to be made: its name in messages, its folder and its settings."""

    name: str
    folder: RunFolder
    settings: TrainSettings


class Trained(NamedTuple):
    """What a run predicts for the validation videos; now: it has been trained now, not before."""

    corpus: Corpus
    estimate: Estimate
    now: bool = True


def how_many(jobs: int | None, trainings: Iterable[Training]) -> int:
    """How many trainings are to be at work at the same time: so many, or, where that is None, as `_at_once` has it, and
    on a GPU one. Raises UsageError for less than one, and for several on a GPU."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs} would train nothing. Give 1 or more.")
    asked = [run.settings for run in trainings]
    each = [ALONE if own.threads == "auto" else own.threads for own in asked]
    shared = can_share() and all(pick_device(own.device).type == "cpu" for own in asked)
    if not shared and (jobs or 1) > 1:
        raise UsageError(
            "Trainings share features on a CPU only, and not on Windows. Leave --jobs out, or add --device cpu."
        )
    if not shared or not asked:
        return 1
    return min(len(asked), jobs or _at_once(len(asked), max(1, CPU_COUNT // max(each))))


def _at_once(runs: int, cores: int) -> int:
    """How many of equal runs share the cores at a time, so that all end soonest: one per core, or more where that is a
    tenth sooner, such as 3 of 5 on 2 cores, since none is then idle while the last one ends."""

    def rounds(slots: int) -> float:
        whole, rest = divmod(runs, slots)
        return whole * slots / cores + (max(1.0, rest / cores) if rest else 0.0)

    best = min(range(cores, 2 * cores), key=rounds)
    return best if rounds(best) < WORTH * rounds(cores) else cores


def train_each(
    pool: Pool,
    labels: Path | str,
    trainings: Sequence[Training],
    jobs: int | None,
    on_begin: Callable[[int], None] = lambda number: None,
    on_epoch: Callable[[dict], None] | None = None,
    on_end: Callable[[int, Trained], None] = lambda number, trained: None,
    on_failure: Callable[[int, AffuseError], None] | None = None,
) -> None:
    """Train all of them that are not finished, each as `train` does.

    jobs  how many at the same time, see `how_many`; for more than one the pool is to be a shared one

    on_begin and on_end hear of a training by its number, the latter first of those that are finished. on_epoch gets the
    rows of `train`, with "run", the training's name, and "at_work", the names of all that are. What the packages have
    to say is said once. Where one fails, the others go on, and on_failure hears of it; where there is none, AffuseError
    is raised in the end, or UsageError where that was the only reason, which names all that failed.
    """
    missing = {number: run for number, run in enumerate(trainings) if not run.folder.finished}
    many, failed = how_many(jobs, missing.values()), {}
    make = _here if many == 1 else _side_by_side
    log.addFilter(once := Once())
    try:
        hear = on_epoch or (lambda row: None)
        with threads(ALONE), closing(make(pool, labels, missing, many, on_begin, hear)) as each:
            for number, run in enumerate(trainings):
                if number not in missing:
                    on_end(number, _predict(pool, labels, run))
            for number, made in each:
                if not isinstance(made, AffuseError):
                    on_end(number, made)
                elif on_failure:
                    on_failure(number, made)
                else:
                    failed[number] = made
    finally:
        log.removeFilter(once)
    if failed:
        kind = UsageError if all(isinstance(error, UsageError) for error in failed.values()) else AffuseError
        raise kind("\n".join(f"{trainings[number].name}: {failed[number]}" for number in sorted(failed)))


def _here(pool, labels, trainings, many, on_begin, on_epoch) -> Iterator[tuple[int, Trained | AffuseError]]:
    """One after another, in this process."""
    for number, run in trainings.items():
        on_begin(number)

        def tell(row: dict, name: str = run.name) -> None:
            on_epoch({**row, "run": name, "at_work": [name]})

        try:
            yield number, _train(pool, labels, run, tell)
        except AffuseError as error:
            yield number, error


def _train(pool: Pool, labels, run: Training, on_epoch: Callable[[dict], None]) -> Trained:
    ended: list[Trained] = []

    def hear(corpus: Corpus, estimate: Estimate) -> None:
        ended.append(Trained(corpus, estimate))

    train(pool.store, labels, run.folder.path, run.settings, on_epoch, pool, hear)
    return ended[0]


def _predict(pool: Pool, labels, run: Training) -> Trained:
    """Of a run that is finished."""
    made = load_run(run.folder.path)
    return Trained(*made.predict_partition(pool.store, labels, "validation", run.settings.device, pool=pool), now=False)


# ---- processes


@dataclass
class _Worker:
    """A process, this end of its pipe, and the number of the training that it is at."""

    process: multiprocessing.process.BaseProcess
    pipe: connection.Connection
    number: int = -1

    def tell(self, what: object) -> None:
        """Give it something. Where it has died that is seen when it is next listened to."""
        with suppress(OSError):
            self.pipe.send(what)


def _side_by_side(pool, labels, trainings, many, on_begin, on_epoch) -> Iterator[tuple[int, Trained | AffuseError]]:
    """In as many processes, once their features are in memory."""
    validation: dict[int, Corpus] = {}
    for number, found in _read(pool, labels, trainings):
        if isinstance(found, AffuseError):
            yield number, found
        else:
            validation[number] = found
    waiting, workers = deque(sorted(validation)), {}
    try:
        while waiting or workers:
            while waiting and len(workers) < many:
                worker = _start(pool, labels)
                workers[worker.pipe] = worker
                _give(worker, waiting, trainings, on_begin)
            for pipe in connection.wait(list(workers)):
                worker = workers[pipe]
                try:
                    what, told = pipe.recv()
                except (EOFError, OSError):
                    yield worker.number, _death(workers.pop(pipe))
                    continue
                if what == "epoch":
                    names = [trainings[other.number].name for other in workers.values()]
                    on_epoch({**told, "run": trainings[worker.number].name, "at_work": names})
                elif what == "log":
                    log.handle(told)
                else:
                    number = worker.number
                    if waiting:
                        _give(worker, waiting, trainings, on_begin)
                    else:
                        _end(workers.pop(pipe))
                    yield number, Trained(validation[number], told) if what == "estimate" else told
    finally:
        for worker in workers.values():
            _end(worker)


def _read(pool: Pool, labels, trainings: Mapping[int, Training]) -> Iterator[tuple[int, Corpus | AffuseError]]:
    """Of each its validation videos. What they draw on is read; statistics of what several train on are found."""
    kinds: dict[tuple, list[int]] = {}
    for number, run in trainings.items():
        kind = str(run.settings.model_dump(include={*OF_DATA})), bool(find(run.settings.model).fit)
        kinds.setdefault(kind, []).append(number)
    for numbers in kinds.values():
        each = [trainings[number].settings for number in numbers]
        try:
            model = measured(each[0].model_options(pool.store.widths))
            _, training, validation, _ = load(pool, labels, each[0], model, pick_device(each[0].device))
            for how in {find(own.model).normalisation or own.normalisation for own in each if len(each) > 1}:
                Normalisation.fit(training, how)
        except AffuseError as error:
            yield from ((number, error) for number in numbers)
            continue
        yield from ((number, validation) for number in numbers)


def _start(pool: Pool, labels) -> _Worker:
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, log.getEffectiveLevel()), daemon=True)
    with deaf_to_ctrl_c():
        process.start()
    theirs.close()
    worker = _Worker(process, pipe)
    worker.tell((pool, labels))  # now, not with its start, which would wait for ever for one that dies before it reads
    return worker


def _give(worker: _Worker, waiting: deque[int], trainings: Mapping[int, Training], on_begin) -> None:
    worker.number = waiting.popleft()
    on_begin(worker.number)
    worker.tell(trainings[worker.number])


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _death(worker: _Worker) -> DeathError:
    _end(worker)
    code = worker.process.exitcode
    how = f"was ended by signal {-code}, as when memory runs out" if code and code < 0 else f"ended with status {code}"
    return DeathError(
        f"the process that trained it {how}. The others are kept, and it goes on from its last checkpoint when the "
        "same command is given again; --jobs 1 takes the least memory."
    )


def _work(pipe: connection.Connection, level: int) -> None:
    """What a process does: one training after another, until its parent ends it."""
    end_with_parent()
    log.setLevel(level)
    log.handlers = [_Told(pipe)]
    with suppress(EOFError, BrokenPipeError, ConnectionResetError), threads(ALONE):  # the parent is gone
        pool, labels = pipe.recv()
        while True:
            run = pipe.recv()
            try:
                made = _train(pool, labels, run, lambda row: pipe.send(("epoch", row)))
                pipe.send(("estimate", made.estimate))
            except AffuseError as error:
                pipe.send(("failed", error))


class _Told(logging.Handler):
    """Tells the parent what the packages have to say."""

    def __init__(self, pipe: connection.Connection):
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        said = {"msg": record.getMessage(), "args": None, "exc_info": None}
        self.pipe.send(("log", logging.makeLogRecord({**vars(record), **said})))
