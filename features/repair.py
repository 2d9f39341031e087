"""Setting damaged shards and packs aside, so that the next extraction makes anew what was damaged. Nothing is lost."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from affuse.errors import AffuseError
from affuse.features.pack import verify_pack
from affuse.features.packing import unpack_one
from affuse.features.seal import Problem
from affuse.features.shard import verify_shard
from affuse.features.store import FeatureStore

QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Quarantined:
    """A shard or a pack set aside: where it is now, and what was wrong with it."""

    path: str
    problems: list[Problem]


def quarantine(store: FeatureStore) -> list[Quarantined]:
    """Move every shard that is damaged or misnamed to the store's folder `quarantine`, where none is taken for a video,
    and every pack with damage, once the records in it that are whole have shards.

    Raises UsageError, before anything is moved, where a shard is of a newer format, AffuseError where a file cannot
    be moved.
    """
    suspects = {problem.file for problem in store.verify().problems}
    moved = []
    for path in (file for file in store.files() if file.name in suspects):
        # What was remade or moved meanwhile is left alone.
        if os.path.lexists(path) and (problems := verify_shard(path)):
            moved.append(Quarantined(str(_set_aside(path, store.path / QUARANTINE)), problems))
    for path in (pack for pack in store.packs() if pack.name in suspects):
        if found := dissolve(store, path):
            moved.append(found)
    return moved


def dissolve(store: FeatureStore, path: Path) -> Quarantined | None:
    """Give every record of a pack that counts and is whole a shard, and remove the pack, or set it aside where anything
    else is in it. Raises as `quarantine` does, and where a shard cannot be written."""
    own = verify_pack(path)
    _, problems = unpack_one(store, path)
    if not path.exists():  # another process has
        return None
    if problems := [*own, *(problem for problem in problems if problem not in own)]:
        return Quarantined(str(_set_aside(path, store.path / QUARANTINE)), problems)
    path.unlink(missing_ok=True)
    return None


def _set_aside(path: Path, folder: Path) -> Path:
    """Move what is at a path into `folder`, under its name and the first number that is free there; where it is now."""
    try:
        folder.mkdir(exist_ok=True)
        for number in itertools.count(1):
            target = folder / f"{path.name}.{number}"
            with suppress(FileExistsError):
                taking = target.mkdir if path.is_dir() and not path.is_symlink() else target.touch
                taking(exist_ok=False)  # now, so that no other process takes it
                break
        os.replace(path, target)
    except OSError as error:
        raise AffuseError(
            f"{path} could not be moved to {folder}: {error.strerror or error}. Check the permissions of both folders."
        ) from None
    return target
