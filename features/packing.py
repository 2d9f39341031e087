"""Shards into packs, and out of them again. Killed at any moment, nothing is lost or there twice: a pack is there whole
before the shards that it holds are removed, and they are there whole before it is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from affuse.console import Progress
from affuse.errors import counted
from affuse.features.index import PACKS
from affuse.features.layout import shard_path
from affuse.features.pack import ChangedError, Loose, Table, read_table, write_pack
from affuse.features.place import Slice, file_of, opened
from affuse.features.seal import DamagedError, Problem
from affuse.features.shard import verify_shard
from affuse.features.store import FeatureStore
from affuse.files import ABANDONED, PIECE, Sink, publish

LARGEST, MOST = 2**28, 1000  # bytes and records of a pack


def pack(
    store: FeatureStore, largest: int = LARGEST, most: int = MOST, progress: Progress = lambda line, failure, last: None
) -> dict:
    """Put every shard that is whole into a pack, of so many bytes and records at most; a larger one has its own.

    {"packs": paths, "records": how many were packed, "problems": of the shards that were left where they are}. Packs
    none of whose records counts any more are removed, a day after they were made: another process may be about to have
    them count. Raises UsageError for a newer format, AffuseError where a pack
    cannot be written.
    """
    files, packs, records = store.files(), [], 0
    problems: list[Problem] = []
    by_digest = sorted(files, key=lambda path: path.name[-11:])
    for group in _groups(_whole(by_digest, problems), largest, most):
        with suppress(ChangedError):  # another process is at work: the next turn has what is left
            packs.append(str(write_pack(store.path / PACKS, group)))
            for loose in group:
                loose.remove()
            records += len(group)
        progress(f"{records} of {counted(len(files), 'video')} packed", None, records == len(files))
    for path in _without_use(store):
        path.unlink(missing_ok=True)
    return {"packs": packs, "records": records, "problems": problems}


def _whole(files: Iterable[Path], problems: list[Problem]) -> Iterator[Loose]:
    """Those that are; what is wrong with the others is noted."""
    for path in files:
        with suppress(ChangedError):
            found = verify_shard(path) if os.path.lexists(path) else []
            problems += found
            if not found:
                yield Loose.of(path)


def _groups(shards: Iterable[Loose], largest: int, most: int) -> Iterator[list[Loose]]:
    group: list[Loose] = []
    for loose in shards:
        if group and (len(group) == most or sum(one.size for one in group) + loose.size > largest):
            yield group
            group = []
        group.append(loose)
    if group:
        yield group


def unpack(store: FeatureStore, progress: Progress = lambda line, failure, last: None) -> dict:
    """Make a shard again of every record in a pack, and remove the packs of which nothing is damaged.

    {"records": how many shards were made, "problems": of what was left in its pack}. Raises UsageError for a newer
    format, AffuseError where a shard cannot be written.
    """
    packs = store.packs()
    records = 0
    problems: list[Problem] = []
    for number, path in enumerate(packs, start=1):
        made, found = unpack_one(store, path)
        if not found:
            path.unlink(missing_ok=True)
        records, problems = records + made, problems + found
        progress(f"{number} of {counted(len(packs), 'pack')} unpacked", None, number == len(packs))
    return {"records": records, "problems": problems}


def unpack_one(store: FeatureStore, path: Path) -> tuple[int, list[Problem]]:
    """Make a shard of every record that counts in a pack and is whole; how many, and what is wrong with the others."""
    try:
        table = read_table(path)
    except DamagedError as error:
        return 0, [error.problem] if path.exists() else []
    made = 0
    problems: list[Problem] = []
    for video_id in table.lines:
        with suppress(ChangedError):
            if store.place(video_id) == table[video_id]:
                problems += (found := verify_shard(table[video_id]))
                made += not found and _take(store, table, video_id)
    return made, problems


def _take(store: FeatureStore, table: Table, video_id: str) -> bool:
    """Make a shard of a record. Raises ChangedError where there is one by now."""
    place, path, mtime = table[video_id], store.shards / shard_path(video_id), table.mtime(video_id)

    def fill(sink: Sink) -> None:
        with opened(place) as packed:
            while piece := packed.read(PIECE):
                sink.write(piece)

    def check(written: Path) -> None:
        with opened(place) as packed, written.open("rb") as shard:
            while piece := packed.read(PIECE):
                if shard.read(PIECE) != piece:
                    raise DamagedError(path, "it does not hold what was written", video_id)
        os.utime(written, ns=(mtime, mtime))
        if os.path.lexists(path):
            raise ChangedError

    publish(path, fill, check)
    return True


def _without_use(store: FeatureStore) -> list[Path]:
    """The packs none of whose records counts, that nobody is making."""
    places = {file_of(place) for place in store.places() if isinstance(place, Slice)}
    damaged = {problem.file for problem in store.damaged}
    unused = [path for path in store.packs() if path not in places and path.name not in damaged]
    return [path for path in unused if time.time() - path.stat().st_mtime > ABANDONED]
