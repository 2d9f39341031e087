"""Labels: which files there are, who is in which partition, and what a file says."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError
from affuse.features.columns import is_number
from affuse.features.timeline import LONGEST
from affuse.files import as_path
from affuse.fuse.data.track import SLACK, Track

PARTITIONS = {name: (name, f"{name.title()}_Set") for name in ("train", "validation", "test")}  # ours, ABAW's
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


def find_labels(folder: Path, validation: Iterable[str] = (), resplit: bool = False) -> dict[str, dict[str, Path]]:
    """Label files below `folder`, {partition: {video id: file}}; an id is the path below its partition's folder.

    The subfolders `train` and `validation` (or ABAW's `Train_Set` and `Validation_Set`; a test folder
    likewise) are the split. A folder without them is one partition, "all", which the ids in `validation`
    divide into train and validation. With `resplit` they divide the videos of a folder's train and validation
    anew; those of its test partition can be in neither. A partition may be empty. Raises UsageError for a folder that
    gives no split or no labels, AffuseError for an id in two partitions.
    """
    folder, validation = as_path("a folder of labels", folder), list(validation)
    if not folder.is_dir():
        raise UsageError(f"Label folder {folder} does not exist. Check --labels.")
    split = {}
    for partition, names in PARTITIONS.items():
        present = [folder / name for name in names if (folder / name).is_dir()]
        if len(present) > 1:
            raise UsageError(
                f"Label folder {folder} has both {present[0].name} and {present[1].name}; keep one of them."
            )
        if present:
            split[partition] = _label_files(present[0])
    if split and validation and not resplit:
        raise UsageError(
            f"Label folder {folder} is split by its subfolders ({', '.join(split)}), and the setting "
            "`validation` names a split too. Keep one of them, or divide train and validation anew: resplit=true."
        )
    owner: dict[str, str] = {}
    for partition, video in ((name, video) for name, files in split.items() for video in files):
        if owner.setdefault(video, partition) != partition:
            raise AffuseError(
                f"Label folder {folder}: video {video!r} is in {owner[video]} and in {partition}. A video in two "
                "partitions is scored on what it was trained on; remove one of the files."
            )
    if not split:
        split = {"all": _label_files(folder)}
    if not any(split.values()):
        raise AffuseError(
            f"Label folder {folder} holds no label files ({', '.join(READERS)}). Expected one <video id>.txt or .csv "
            "per video."
        )
    if validation:
        split |= _divide(folder, split, set(validation))
    return split


def _divide(folder: Path, split: dict[str, dict[str, Path]], validation: set[str]) -> dict[str, dict[str, Path]]:
    """Train and validation anew, from all videos but those of the test partition."""
    files = {video: path for name, part in split.items() if name != "test" for video, path in part.items()}
    for video in sorted(validation - set(files)):
        if video in split.get("test", {}):
            raise UsageError(
                f"Setting validation: {video!r} is in the test partition of {folder}. Models are chosen by the "
                "validation videos, and the test partition must not choose one."
            )
        raise UsageError(f"Setting validation: {video!r} has no label file in {folder}{nearest(video, files)}")
    return {
        "train": {video: path for video, path in files.items() if video not in validation},
        "validation": {video: path for video, path in files.items() if video in validation},
    }


def partition_files(
    folder: Path, partition: str, validation: Iterable[str] = (), resplit: bool = False
) -> dict[str, Path]:
    """The label files of one partition, or a UsageError that says what the folder must look like."""
    split = find_labels(folder, validation, resplit)
    if partition not in split:
        raise UsageError(
            f"Label folder {folder} has no {partition!r} partition (it has: {', '.join(split)}). "
            f"{_how_to_have(partition, split)}"
        )
    if not split[partition]:
        raise AffuseError(
            f"Label folder {folder}: partition {partition!r} holds no label files (<video id>.txt or .csv)."
        )
    return split[partition]


def _how_to_have(partition: str, split: Iterable[str]) -> str:
    if partition not in PARTITIONS:
        return f"Score one that it has: --partition {next(iter(split))}."
    if partition == "test":
        return (
            "Put the label files of the test videos into a subfolder test/ (or Test_Set/), or score another partition."
        )
    return (
        "Put the files into subfolders train/ and validation/ (or Train_Set/ and Validation_Set/), or name the videos "
        "to validate on: --set validation=[clip07,clip12]."
    )


def _label_files(folder: Path) -> dict[str, Path]:
    files = sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in READERS)
    named: dict[str, Path] = {}
    for path in files:
        if not path.is_file():
            raise AffuseError(f"{path} has the name of a label file, but is no file. Remove or rename it.")
        video = path.relative_to(folder).as_posix().removesuffix(path.suffix)
        if video in named:
            raise AffuseError(f"{named[video]} and {path} both label video {video!r}. Remove one of them.")
        named[video] = path
    return named
