"""Who validates in which fold. Folds come from a table of the videos; no subject, and no file of several people, may be
on both sides of one."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError, counted, listed

log = logging.getLogger("affuse")

VIDEO, SUBJECT, FOLD = "video", "subject", "fold"
PERSON = re.compile(r"(#\d+|_left|_right)$")  # of several in a file: the store's mark, and the sides of Aff-Wild2


@dataclass(frozen=True)
class Fold:
    """One fold: the videos it validates on. It trains on all the others."""

    name: str
    validation: tuple[str, ...]


@dataclass(frozen=True)
class VideoTable:
    """A CSV of videos. rows {video: {column: value}}, lines {video: line of the file}."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    lines: dict[str, int]

    def column(self, name: str) -> dict[str, str]:
        """A column by video. Raises UsageError for one that is not there."""
        if name not in self.columns:
            raise UsageError(f"{self.path} has no column {name!r}{nearest(name, self.columns)}")
        return {video: row[name] for video, row in self.rows.items()}


def read_videos(path: Path, labelled: Iterable[str], test: Iterable[str] = ()) -> VideoTable:
    """Read a table with a column `video` and others such as `fold` or `subject`, one row per labelled video.

    Raises AffuseError naming file and line: a video that has no label or is named twice, an empty field; a labelled
    video that is not there; UsageError for one of the test partition.
    """
    labelled, test = set(labelled), set(test)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head, *lines = csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Table of videos {path} cannot be read: {error}.") from None
    except ValueError:
        raise UsageError(f"Table of videos {path} is empty. Its first line must name the columns.") from None
    columns = tuple(name.strip() for name in head)
    if VIDEO not in columns or len(set(columns)) != len(columns):
        raise UsageError(
            f"Table of videos {path}, line 1: expected different column names, among them {VIDEO!r}; found "
            f"{', '.join(columns)}."
        )
    rows: dict[str, dict[str, str]] = {}
    numbers: dict[str, int] = {}
    for line, fields in enumerate(lines, start=2):
        if not fields:
            continue
        row = dict(zip(columns, (text.strip() for text in fields), strict=False))
        video, where = row.get(VIDEO, ""), f"Table of videos {path}, line {line}"
        if len(fields) != len(columns) or not all(row.values()):
            raise AffuseError(f"{where}: expected a value in each of {', '.join(columns)}; found {fields}.")
        if video in rows:
            raise AffuseError(f"{where}: video {video!r} is in line {numbers[video]} too.")
        if video in test:
            raise UsageError(
                f"{where}: video {video!r} is in the test partition, which no fold may train on or choose by."
            )
        if video not in labelled:
            raise AffuseError(f"{where}: video {video!r} has no label file{nearest(video, sorted(labelled))}")
        rows[video], numbers[video] = row, line
    if absent := sorted(labelled - set(rows)):
        raise AffuseError(
            f"Table of videos {path} lacks {counted(len(absent), 'labelled video')}: {listed(absent)}. Add a row each."
        )
    return VideoTable(path, columns, rows, numbers)


def file_of(video: str) -> str:
    """The file that a video's id is of: "clip" of "clip#2", "clip_left" and "clip"."""
    return PERSON.sub("", video)


def listed_folds(table: VideoTable, column: str = FOLD) -> list[Fold]:
    """A fold for each value of a column: those videos validate in it. Raises UsageError where that is one fold only,
    AffuseError where a subject, or a file of several people, is in two, naming file and lines. A warning says so where
    the table does not know the subjects."""
    if SUBJECT not in table.columns:
        log.warning(
            "%s has no column %r: a person may be in training and validation of a fold, and the score too good",
            table.path, SUBJECT,
        )  # fmt: skip
    return _folds(table, table.column(column))


def grouped_folds(table: VideoTable, k: int, column: str = SUBJECT, seed: int = 0) -> list[Fold]:
    """`k` folds of about as many videos, none of which divides the videos with the same value of `column`, or of one
    file.

    Raises UsageError for more folds than there are such groups.
    """
    groups = _groups(table.column(column))
    if not 2 <= k <= len(groups):
        raise UsageError(
            f"{k} folds cannot be made: {table.path} has {len(groups)} values in {column!r}, those of one file's "
            f"people taken together. Give 2 to {len(groups)}."
        )
    order = np.random.default_rng(seed).permutation(sorted(groups))
    filled = [0] * k
    values = {}
    for group in sorted(order, key=lambda name: -len(groups[name])):  # the largest first, each to the emptiest fold
        number = filled.index(min(filled))
        filled[number] += len(groups[group])
        values |= dict.fromkeys(groups[group], str(number))
    return _folds(table, values)


def _groups(values: dict[str, str]) -> dict[str, list[str]]:
    """Of {video: value}, the videos that hang together by a value or a file, by the first of their values."""
    names, value = np.unique(list(values.values()), return_inverse=True)
    _, file = np.unique([file_of(video) for video in values], return_inverse=True)
    size = len(names) + len(values)
    links = coo_array((np.ones(len(values)), (value, len(names) + file)), shape=(size, size))
    _, together = connected_components(links, directed=False)
    groups: dict[str, list[str]] = {}
    for video, i in zip(values, value, strict=True):
        groups.setdefault(str(names[(together[: len(names)] == together[i]).argmax()]), []).append(video)
    return groups


def _folds(table: VideoTable, values: dict[str, str]) -> list[Fold]:
    """A fold for each of the values {video: fold}."""
    owners = {"file": {video: file_of(video) for video in values}}
    if SUBJECT in table.columns:
        owners = {SUBJECT: table.column(SUBJECT)} | owners
    for what, owner in owners.items():
        first: dict[str, str] = {}
        for video, name in owner.items():
            other = first.setdefault(name, video)
            if values[video] != values[other]:
                raise AffuseError(
                    f"Table of videos {table.path}: {what} {name!r} is in fold {values[other]} with {other!r} (line "
                    f"{table.lines[other]}) and in fold {values[video]} with {video!r} (line {table.lines[video]}). A "
                    f"person in training and validation makes the score too good; keep a {what}'s videos together."
                )
    names = sorted(set(values.values()))
    if len(names) < 2:
        raise UsageError(f"{table.path} gives one fold only ({', '.join(names)}); nothing would be left to train on.")
    return [Fold(name, tuple(sorted(v for v in values if values[v] == name))) for name in names]
