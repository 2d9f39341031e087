"""Labels: what a file says."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from affuse.errors import AffuseError
from affuse.features.columns import is_number
from affuse.features.timeline import LONGEST
from affuse.fuse.data.track import SLACK, Track

NOT_ANNOTATED = -5.0  # ABAW's mark for a frame that nobody rated
ABAW = ("valence", "arousal")
TIME = ("time", "start", "end")  # columns that are no targets; seconds


def read_abaw(path: Path, rate: float | None = None) -> Track:
    """Read one ABAW text file: header `valence,arousal`, one row per frame, or `rate` rows per second.

    A row is valid only when both its values are. Raises AffuseError naming file and line for a wrong header, a
    row that is not two numbers, or a value that is neither in [-1, 1] nor -5.
    """
    lines = _lines(path)
    _check_abaw_header(path, lines)
    pairs = [_pair(text) for text in lines[1:]]
    if None in pairs:
        line = pairs.index(None) + 2
        raise AffuseError(f"Label file {path}, line {line}: expected two numbers, found {lines[line - 1]!r}.")
    values = np.array(pairs)
    return _track(path, ABAW, values, values == NOT_ANNOTATED, np.all, _clock(len(values), rate))


def read_csv(path: Path, rate: float | None = None) -> Track:
    """Read a CSV file whose header names its columns: one per target, and when a row holds.

    When: `time` (seconds, rising), or `start` and `end` (seconds; spans in order that do not overlap), or neither
    and `rate` rows per second. An empty field or -5 is a value that is not there. Commas, semicolons and tabs
    separate. Raises AffuseError naming file and line.
    """
    lines = _lines(path)
    if not lines:
        raise AffuseError(f"Label file {path} is empty. Its first line must name the columns.")
    separator = max(",;\t", key=lines[0].count)
    try:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise AffuseError(f"Label file {path} is no table: {error}. Check the file.") from None
    names = _csv_header(path, rows[0])
    if len(rows) == 1:
        raise AffuseError(f"Label file {path} has a header but no rows.")
    table = []
    for line, row in enumerate(rows[1:], start=2):
        row = row or [""] * (len(names) == 1)  # a blank line is an empty field where there is one column
        if len(row) != len(names):
            raise AffuseError(
                f"Label file {path}, line {line}: {len(row)} fields under {len(names)} column names: "
                f"{lines[line - 1]!r}."
            )
        table.append([_number(path, line, name, text) for name, text in zip(names, row, strict=True)])
    columns = dict(zip(names, np.array(table).T, strict=True))
    time, end = _csv_times(path, columns, rate)
    targets = tuple(name for name in names if name not in TIME)
    values = np.stack([columns[target] for target in targets], axis=1)
    return _track(path, targets, values, (values == NOT_ANNOTATED) | np.isnan(values), np.any, time, end)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AffuseError(f"Label file {path} cannot be read: {error}. Check the file.") from None


def _check_abaw_header(path: Path, lines: list[str]) -> None:
    expected = ",".join(ABAW)
    if not lines:
        raise AffuseError(f"Label file {path} is empty. Its first line must be {expected!r}, then one row per frame.")
    names = [name.strip().lower() for name in lines[0].split(",")]
    if names == list(ABAW[::-1]):
        raise AffuseError(f"Label file {path}, line 1: the columns are swapped; expected {expected!r} in this order.")
    if names != list(ABAW):
        hint = " The file seems to have no header." if _pair(lines[0]) else ""
        raise AffuseError(f"Label file {path}, line 1: expected the header {expected!r}, found {lines[0]!r}.{hint}")
    if len(lines) == 1:
        raise AffuseError(f"Label file {path} has a header but no rows. Expected one row per frame.")


def _pair(text: str) -> tuple[float, float] | None:
    try:
        valence, arousal = map(float, text.split(","))
    except ValueError:
        return None
    return valence, arousal


def _csv_header(path: Path, header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    names = [name.lower() if name.lower() in TIME else name for name in names]
    for name in names:
        if not name or is_number(name):
            hint = "The file seems to have no header: its" if name else "A column has no name: the"
            raise AffuseError(f"Label file {path}, line 1: {hint} first line must name every column.")
        if names.count(name) > 1:
            raise AffuseError(f"Label file {path}, line 1: the column {name!r} is there twice.")
    if not set(names) - set(TIME):
        raise AffuseError(f"Label file {path}, line 1: no target among the columns {', '.join(names)}.")
    return names


def _number(path: Path, line: int, name: str, text: str) -> float:
    """A field as a number; NaN only where the field is empty."""
    if not text.strip():
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise AffuseError(
            f"Label file {path}, line {line}: {name} is {text!r}, not a number. Leave the field empty where there "
            "is no annotation."
        )
    return value


def _csv_times(path: Path, columns: dict[str, np.ndarray], rate: float | None) -> tuple[np.ndarray, np.ndarray | None]:
    """When each row holds: time or start (N,), and end (N,) for rows that have one."""
    given = [name for name in TIME if name in columns]
    if given not in ([], ["time"], ["start", "end"]):
        raise AffuseError(
            f"Label file {path}, line 1: the columns {', '.join(given)} do not say when a row holds. Give `time`, "
            "or `start` and `end`, in seconds."
        )
    if not given:
        rows = len(next(iter(columns.values())))
        if rate is None:
            raise AffuseError(
                f"Label file {path} has no column `time`, nor `start` and `end`. Name its rows per second: --rate 25."
            )
        return _clock(rows, rate), None
    for name in given:
        for row in np.flatnonzero(np.isnan(columns[name])):
            raise AffuseError(f"Label file {path}, line {row + 2}: {name} is empty.")
    time = columns[given[0]]
    for row in np.flatnonzero(np.diff(time) <= 0):
        raise AffuseError(
            f"Label file {path}, line {row + 3}: {given[0]} {time[row + 1]:g} does not come after {time[row]:g} of "
            "the line before. Sort the rows by time, each time once."
        )
    if "end" not in columns:
        return time, None
    end = columns["end"]
    for row in np.flatnonzero(end <= time):
        raise AffuseError(
            f"Label file {path}, line {row + 2}: the row ends at {end[row]:g}, not after its start {time[row]:g}."
        )
    for row in np.flatnonzero(time[1:] < end[:-1] - SLACK):
        raise AffuseError(
            f"Label file {path}, line {row + 3}: the row starts at {time[row + 1]:g}, before the line above ends "
            f"({end[row]:g}). A moment can have one label only."
        )
    return time, end


def _clock(rows: int, rate: float | None) -> np.ndarray | None:
    return None if rate is None else np.arange(rows) / rate


def _track(path: Path, targets: Sequence[str], values, absent, needed: Callable, time, end=None) -> Track:
    """The track of values (N, targets) but for those absent; a row counts where np.any or np.all, as `needed` says, are
    there. Raises AffuseError for a value that cannot be."""
    wrong = ~((np.abs(values) <= 1) | absent)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise AffuseError(
            f"Label file {path}, line {row + 2}: {targets[column]} is {values[row, column]:g}, but labels "
            "lie in [-1, 1], or are -5 where a frame is not annotated."
        )
    last = np.zeros(1) if time is None else np.maximum(np.abs(time), time if end is None else end)
    if (late := last > LONGEST).any():
        what = f"the row is at {last[late][0]:g} s; labels go on for {LONGEST // 3600} hours at most"
        raise AffuseError(f"Label file {path}, line {late.argmax() + 2}: {what}. Check times, in seconds, and rate.")
    kept = np.where(absent, np.nan, values).astype(np.float32)
    return Track(path, tuple(targets), kept, needed(~absent, axis=1), time, end)


READERS: dict[str, Callable[[Path, float | None], Track]] = {".txt": read_abaw, ".csv": read_csv}


def read_track(path: Path, rate: float | None = None) -> Track:
    """Read a label file with the reader of its suffix. rate: rows per second of files that do not say."""
    return READERS[path.suffix.lower()](path, rate)
