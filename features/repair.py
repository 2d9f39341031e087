"""Setting aside what is damaged in a store, so that the next extraction makes it anew. Nothing is deleted."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from affuse.features.seal import Problem
from affuse.features.store import SHARDS, FeatureStore, problems_in

from affuse.errors import AffuseError

QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Quarantined:
    """A shard set aside: where it is now, and what was wrong with it."""

    path: str
    problems: list[Problem]


def quarantine(store: FeatureStore) -> list[Quarantined]:
    """Move every shard that is damaged or misnamed to the store's folder `quarantine`, where none is taken for a video.

    Raises UsageError, before anything is moved, where a shard is of a newer format, AffuseError where a file cannot
    be moved.
    """
    suspects = sorted({problem.file for problem in store.verify().problems})
    moved = []
    for path in (store.path / SHARDS / name for name in suspects):
        if path.is_file() and (
            problems := problems_in(path)
        ):  # what was remade or moved meanwhile is left alone
            moved.append(Quarantined(str(_set_aside(path, store.path / QUARANTINE)), problems))
    return moved


def _set_aside(path: Path, folder: Path) -> Path:
    """Move a file into `folder`, under its name and the first number that is free there; where it is now."""
    try:
        folder.mkdir(exist_ok=True)
        for number in itertools.count(1):
            target = folder / f"{path.name}.{number}"
            if _taken(target):
                continue
            os.replace(path, target)
            return target
    except OSError as error:
        raise AffuseError(
            f"{path} could not be moved to {folder}: {error.strerror or error}. Check the permissions of both folders."
        ) from None


def _taken(target: Path) -> bool:
    """Whether the name is taken; if not, it is now, so that no other process takes it."""
    try:
        target.open("x").close()
    except FileExistsError:
        return True
    return False
