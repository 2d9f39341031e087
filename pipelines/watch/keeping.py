"""What a watch leaves: a record in a store, a table of values."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from affuse.errors import UsageError
from affuse.extract.media import LONGEST
from affuse.extract.videos import AnyPath, Job
from affuse.features.record import Provenance, Source, how_they_differ
from affuse.features.store import FeatureStore
from affuse.files import make_folder
from affuse.fuse.scoring.predict import SEEN_AS
from affuse.pipelines.prediction import Run
from affuse.pipelines.watch.memory import Memory, Said
from affuse.pipelines.watch.reading import Value
from affuse.pipelines.watch.source import Camera, Stream


def check_store(store: AnyPath, name: str, provenance: Provenance) -> FeatureStore:
    """The store in which a record of that name is to be. Raises UsageError where it cannot be."""
    kept = FeatureStore(store, create=True)
    if len(kept) and (differences := how_they_differ(provenance, kept.provenance)):
        raise UsageError(
            f"{kept.path} holds features of another kind: {'; '.join(differences)}. Choose another folder for --save."
        )
    if name in kept:
        raise UsageError(f"{kept.path} has a record {name!r} already. Choose another folder for --save.")
    return kept


def name_of(found: Camera | Stream) -> str:
    """What a record of the source is called: as the file, or by the moment."""
    if isinstance(found, Stream) and found.path.is_file():
        return found.path.stem
    return f"live-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"


def keep(memory: Memory, found: Camera | Stream, said: Said, missed: str, store: FeatureStore, name: str,
         provenance: Provenance) -> None:  # fmt: skip
    """Write all that a memory has kept, and all words, as a record; `missed`: what to say of pictures that are not in
    it. Raises AffuseError where it cannot be written."""
    job = Job(name, found.name, found.path) if isinstance(found, Stream) and found.path.is_file() else None
    source = job.source() if job else Source(found.name, 0, "")
    notes = f"followed live, {missed}"
    if memory.faces[-1].time > LONGEST:
        notes += f"; what was seen after {LONGEST / 3600:.0f} hours was not kept"
    store.write(memory.record(name, source, said, notes), provenance)


@contextmanager
def table(path: Path | None, run: Run, lanes: tuple[str, ...]) -> Iterator[Callable[[Value], None]]:
    """A CSV of the values as they are made, with the columns of predictions; nothing where no file is named, or
    there is no value. Raises UsageError for a file that is there already, or cannot be written."""
    if path is None:
        yield lambda value: None
        return
    make_folder(path.parent)
    targets, seen = run.model.targets, [SEEN_AS[m] for m in lanes]
    unsure = run.others or run.model.options.deviations
    try:
        file = path.open("x", newline="", encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{path} is there already. Choose another file for --out.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Choose another file for --out.") from None
    with _unless_empty(path), file:
        rows = csv.writer(file, lineterminator="\n")
        more = [f"{target}_deviation" for target in targets] if unsure else []
        header = ["time", *targets, *more, *seen, "valid", "delay"]

        def write(value: Value) -> None:
            numbers = [value.time, *value.values.values(), *(value.deviation or {}).values()]
            there = [int(value.present[name]) for name in seen]
            if not file.tell():
                rows.writerow(header)
            rows.writerow([*(f"{number:.6f}" for number in numbers), *there, int(value.valid), f"{value.delay:.3f}"])
            file.flush()

        yield write


@contextmanager
def _unless_empty(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        if not path.stat().st_size:
            path.unlink()
