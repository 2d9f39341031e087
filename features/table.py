"""One video's features of one modality as others keep them: a .npy, .npz or .csv file, read into a `Table`.

A row with NaN in it is a missing row. Rows are read in blocks and kept as float16, as the store does.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from affuse.errors import AffuseError

SUFFIXES = (".npy", ".npz", ".csv")
BLOCK = 4096  # rows converted at once: pandas takes its time per column and block
LARGEST = float(np.finfo(np.float16).max)
TIMES = ("time", "start", "end")  # seconds
OTHERS = ("valid", "box", "confidence", "word")  # arrays of an .npz that are no features


@dataclass(frozen=True)
class Table:
    """embedding (N, D) float16, zeros where a row is missing; valid (N,) bool. `columns` holds what else the file
    has: time, start, end (N,) float64, and of an .npz box (N, 4), confidence (N,), or word (N,)."""

    path: Path
    embedding: np.ndarray
    valid: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embedding)


def read_table(path: Path, time_column: str = "time", ignore: Collection[str] = ()) -> Table:
    """Read a file by its suffix. A .npy is (N, D); an .npz has `embedding` or one array only, and may have time, or
    start and end; a .csv has a header, and every column that is no time and not in `ignore` is a feature.

    Raises AffuseError naming file and row for what is no table of numbers.
    """
    reader = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}[path.suffix]
    try:
        table = reader(path, time_column, ignore)
    except (OSError, ValueError, EOFError, KeyError, UnicodeDecodeError) as error:
        raise AffuseError(f"Feature file {path} cannot be read: {error}. Check the file.") from None
    _check_times(table)
    return table


def width_of(path: Path, time_column: str = "time", ignore: Collection[str] = ()) -> int:
    """How wide the rows of a file are; a .csv is not read beyond its header."""
    if path.suffix == ".csv":
        return len(_feature_columns(path, _header(path), time_column, ignore))
    return read_table(path, time_column, ignore).embedding.shape[1]


def _read_npy(path: Path, time_column: str, ignore: Collection[str]) -> Table:
    return Table(path, *_rows(path, np.load(path, mmap_mode="r", allow_pickle=False)))


def _read_npz(path: Path, time_column: str, ignore: Collection[str]) -> Table:
    with np.load(path, allow_pickle=False) as file:
        names = [name for name in file.files if name not in (*TIMES, *OTHERS, time_column, *ignore)]
        name = "embedding" if "embedding" in names else names[0] if len(names) == 1 else ""
        if not name:
            raise AffuseError(
                f"Feature file {path} has the arrays {', '.join(file.files)}: which holds the features? Call it "
                "`embedding`."
            )
        embedding, valid = _rows(path, file[name])
        columns = {}
        for own in file.files:
            if own in (*TIMES, *OTHERS, time_column) and own not in ignore:
                array = columns["time" if own == time_column else own] = file[own]
                if len(array) != len(embedding):
                    raise AffuseError(f"Feature file {path}: {name} has {len(embedding)} rows, {own} {len(array)}.")
        given = columns.pop("valid", valid).astype(bool)
    embedding[~given] = 0
    return Table(path, embedding, valid & given, columns)


def _read_csv(path: Path, time_column: str, ignore: Collection[str]) -> Table:
    import pandas as pd  # slow to import

    header = _header(path)
    features = _feature_columns(path, header, time_column, ignore)
    times = {time_column: "time", "start": "start", "end": "end"}
    given = [name for name in header if name in times and name not in ignore]
    types = dict.fromkeys([*given, *features], np.float64)  # by way of float32, some would be rounded twice
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in given}
    done = 0
    _check_fields(path, len(header), np.zeros(1, int))  # where the first line is too long pandas shifts the columns
    try:
        # Every column is read: with `usecols`, pandas takes lines with too many fields.
        with pd.read_csv(
            path, dtype=types, chunksize=BLOCK, skip_blank_lines=False, encoding="utf-8-sig", skipinitialspace=True,
            index_col=False,
        ) as blocks:  # fmt: skip
            for block in blocks:
                parts.append(_half(path, block[features].to_numpy(), done))
                for name in given:
                    columns[name].append(block[name].to_numpy())
                done += len(block)
    except ValueError as error:  # a field that is no number, or too many fields
        raise _blame_line(path, header, types, str(error)) from None
    embedding, valid = _joined(parts, len(features))
    if not valid.all():  # pandas fills a line cut short with NaN, and that is damage, not a missing row
        _check_fields(path, len(header), np.flatnonzero(~valid))
    return Table(path, embedding, valid, {times[name]: np.concatenate(columns[name]) for name in given if done})


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError) as error:
        raise AffuseError(f"Feature file {path} cannot be read: {error}. Check the file.") from None
    for name in header:
        if header.count(name) > 1:
            raise AffuseError(f"Feature file {path}, line 1: the column {name!r} is there twice.")
    return header


def _feature_columns(path: Path, header: list[str], time_column: str, ignore: Collection[str]) -> list[str]:
    features = [name for name in header if name not in (time_column, "start", "end", *ignore)]
    fractions = [name for name in header if is_number(name) and not name.isdigit()]
    if not features or fractions or "" in header:
        what = "a column has no name" if "" in header else "it names no features"
        what = f"{fractions[0]!r} is no name" if fractions else what
        raise AffuseError(
            f"Feature file {path}, line 1: expected a header that names every column, its time and its features; "
            f"{what}."
        )
    return features


def is_number(text: str) -> bool:
    """Whether it reads as a number, NaN and infinity included."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _blame_line(path: Path, header: list[str], types: dict, reason: str) -> AffuseError:
    """The same problem with the number of its line, which pandas does not always tell."""
    for line, row in _lines(path):
        if len(row) != len(header):
            return AffuseError(f"Feature file {path}, line {line}: {len(row)} fields under {len(header)} names.")
        for name, text in zip(header, row, strict=True):
            if name in types and text.strip() and not is_number(text):
                return AffuseError(f"Feature file {path}, line {line}: {name} is {text!r}, not a number.")
    return AffuseError(f"Feature file {path} cannot be read: {reason}.")


def _check_fields(path: Path, fields: int, rows: np.ndarray) -> None:
    suspects = set(rows.tolist())
    for line, row in _lines(path):
        if line - 2 > rows[-1]:
            return
        if line - 2 in suspects and len(row) != fields:
            raise AffuseError(f"Feature file {path}, line {line}: {len(row)} fields under {fields} names.")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        yield from enumerate(rows, start=2)


def _rows(path: Path, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) numbers in blocks as `_half` gives them; (N,) counts as (N, 1)."""
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        raise AffuseError(
            f"Feature file {path} holds {array.dtype} of shape {array.shape}; expected numbers, (rows, width)."
        )
    array = array.reshape(len(array), -1) if array.ndim == 1 else array
    blocks = (np.asarray(array[i : i + BLOCK]) for i in range(0, len(array), BLOCK))
    return _joined([_half(path, block, i * BLOCK) for i, block in enumerate(blocks)], array.shape[1])


def _joined(parts: list[tuple[np.ndarray, np.ndarray]], width: int) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.zeros((0, width), np.float16), np.zeros(0, bool)
    embeddings, valid = zip(*parts or [nothing], strict=True)
    return np.concatenate(embeddings), np.concatenate(valid)


def _half(path: Path, values: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as float16 with zeros for missing ones, and which are there. `first` is the number of the first row."""
    if values.size and values.min() >= -LARGEST and values.max() <= LARGEST:  # and nothing is NaN
        return values.astype(np.float16), np.ones(len(values), bool)
    missing = np.isnan(values).any(axis=1)
    values = np.where(missing[:, None], 0, values)
    if len(wrong := np.argwhere(~(np.abs(values) <= LARGEST))):
        row, column = wrong[0]
        where = f"line {first + row + 2}" if path.suffix == ".csv" else f"row {first + row}"
        raise AffuseError(
            f"Feature file {path}, {where}: value {values[row, column]:g} in column {column} of the features is beyond "
            f"{LARGEST:g}, the largest that float16 holds. Scale the features."
        )
    return values.astype(np.float16), ~missing


def _check_times(table: Table) -> None:
    given = [name for name in TIMES if name in table.columns]
    if given not in ([], ["time"], ["start", "end"]):
        raise AffuseError(
            f"Feature file {table.path} has {', '.join(given)}; a row's moment is `time`, or `start` and `end`."
        )
    for name in given:
        values = table.columns[name]
        wrong = ~np.isfinite(values)
        if name != "end":
            wrong[1:] |= ~(np.diff(values) > (0 if name == "time" else -np.inf))
        for row in np.flatnonzero(wrong):
            where = f"line {row + 2}" if table.path.suffix == ".csv" else f"row {row}"
            raise AffuseError(
                f"Feature file {table.path}, {where}: {name} is {values[row]:g}; times are numbers of seconds that "
                "rise from row to row."
            )
