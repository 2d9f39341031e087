"""One video's features of one modality as others keep them: a .npy, .npz or .csv file, read into a `Table`.

A row with NaN in it is a missing row. Rows are read in blocks and kept as float16, as the store does.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from affuse.errors import AffuseError
from affuse.features.columns import Columns, header_of, is_number, rows_of
from affuse.features.timeline import LONGEST

SUFFIXES = (".npy", ".npz", ".csv")
BLOCK = 4096  # rows converted at once: pandas takes its time per column and block
LARGEST = float(np.finfo(np.float16).max)
TIMES = ("time", "start", "end")  # seconds
OTHERS = ("valid", "box", "confidence", "word")  # arrays of an .npz that are no features


@dataclass(frozen=True)
class Table:
    """embedding (N, D) float16, zeros where a row is missing; valid (N,) bool. `columns` holds what else the file
    has: time, start, end (N,) float64, and of an .npz box (N, 4), confidence (N,), or word (N,). `names` are those of
    the D features of a .csv."""

    path: Path
    embedding: np.ndarray
    valid: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.embedding)


def read_table(path: Path, wanted: Columns | None = None) -> Table:
    """Read a file by its suffix. A .npy is (N, D); an .npz has `embedding` or one array only, and may have time, or
    start and end; a .csv has a header, and commas, semicolons or tabs between its columns.

    Raises AffuseError naming file and row for what is no table of numbers.
    """
    reader = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}[path.suffix]
    try:
        table = reader(path, wanted or Columns())
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise AffuseError(f"Feature file {path} cannot be read: {error}. Check the file.") from None
    _check_times(table)
    return table


def features_of(path: Path, wanted: Columns) -> tuple[int, list[str]]:
    """How wide the rows of a file are, and the names of the features of a .csv, which is not read beyond its header."""
    if path.suffix == ".csv":
        names = wanted.features(path, header_of(path)[0])
        return len(names), names
    return read_table(path, wanted).embedding.shape[1], []


def names_in(path: Path) -> list[str]:
    """The columns of a .csv, the arrays of an .npz; none of a .npy, or where the file cannot be read."""
    with suppress(AffuseError, OSError, ValueError, BadZipFile):
        if path.suffix == ".csv":
            return header_of(path)[0]
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return list(file.files)
    return []


def _read_npy(path: Path, wanted: Columns) -> Table:
    return Table(path, *_rows(path, np.load(path, mmap_mode="r", allow_pickle=False)))


def _read_npz(path: Path, wanted: Columns) -> Table:
    with np.load(path, allow_pickle=False) as file:
        besides = {**wanted.times(path, file.files), **{name: name for name in OTHERS if name not in wanted.ignored}}
        names = [name for name in file.files if name not in besides and name not in wanted.ignored]
        name = "embedding" if "embedding" in names else names[0] if len(names) == 1 else ""
        if not name:
            raise AffuseError(
                f"Feature file {path} has the arrays {', '.join(file.files)}: which holds the features? Call it "
                "`embedding`."
            )
        wanted.refuse(path, [name], timed=True)
        embedding, valid = _rows(path, file[name])
        columns = {}
        for own in file.files:
            if own in besides:
                array = columns[besides[own]] = file[own]
                if len(array) != len(embedding):
                    raise AffuseError(f"Feature file {path}: {name} has {len(embedding)} rows, {own} {len(array)}.")
        given = columns.pop("valid", valid).astype(bool)
    embedding[~given] = 0
    return Table(path, embedding, valid & given, columns)


def _read_csv(path: Path, wanted: Columns) -> Table:
    import pandas as pd  # slow to import

    header, separator = header_of(path)
    features = wanted.features(path, header)
    given = wanted.times(path, header)
    types = dict.fromkeys([*given, *features], np.float64)  # by way of float32, some would be rounded twice
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in given}
    done = 0
    _check_fields(path, header, separator, np.zeros(1, int))  # where it is too long pandas shifts the columns
    try:
        # Every column is read: with `usecols`, pandas takes lines with too many fields.
        with pd.read_csv(
            path, sep=separator, names=header, header=0, dtype=types, chunksize=BLOCK, skip_blank_lines=False,
            encoding="utf-8-sig", skipinitialspace=True, index_col=False,
        ) as blocks:  # fmt: skip
            for block in blocks:
                parts.append(_half(path, block[features].to_numpy(), done))
                for name in given:
                    columns[name].append(block[name].to_numpy())
                done += len(block)
    except ValueError as error:  # a field that is no number, or too many fields
        raise _blame_line(path, header, separator, types, str(error)) from None
    embedding, valid = _joined(parts, len(features))
    if not valid.all():  # pandas fills a line cut short with NaN, and that is damage, not a missing row
        _check_fields(path, header, separator, np.flatnonzero(~valid))
    times = {own: np.concatenate(columns[name]) for name, own in given.items() if done}
    return Table(path, embedding, valid, times, tuple(features))


def _blame_line(path: Path, header: list[str], separator: str, types: dict, reason: str) -> AffuseError:
    """The same problem with the number of its line, which pandas does not always tell."""
    for line, row in rows_of(path, separator):
        if len(row) != len(header):
            return AffuseError(f"Feature file {path}, line {line}: {len(row)} fields under {len(header)} names.")
        for name, text in zip(header, row, strict=True):
            if name in types and text.strip() and not is_number(text):
                advice = f" If the column holds text, leave it out: --ignore {shlex.quote(name)}." * (line == 2)
                return AffuseError(f"Feature file {path}, line {line}: {name} is {text!r}, not a number.{advice}")
    return AffuseError(f"Feature file {path} cannot be read: {reason}.")


def _check_fields(path: Path, header: list[str], separator: str, rows: np.ndarray) -> None:
    suspects = set(rows.tolist())
    for line, row in rows_of(path, separator):
        if line - 2 > rows[-1]:
            return
        if line - 2 in suspects and len(row) != len(header):
            raise AffuseError(f"Feature file {path}, line {line}: {len(row)} fields under {len(header)} names.")


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
        wrong, endless = ~np.isfinite(values), np.abs(values) > LONGEST
        if name != "end":
            wrong[1:] |= ~(np.diff(values) > (0 if name == "time" else -np.inf))
        for row in np.flatnonzero(wrong | endless):
            where = f"line {row + 2}" if table.path.suffix == ".csv" else f"row {row}"
            why = "times are numbers of seconds that rise from row to row."
            if not wrong[row]:
                hours = LONGEST // 3600
                why = f"rows go on for {hours} hours at most. Give seconds from the video's beginning."
            raise AffuseError(f"Feature file {table.path}, {where}: {name} is {values[row]:g}; {why}")
