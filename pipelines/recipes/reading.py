"""Text files as data sets release them: rows with their line numbers, and errors that name both."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from affuse.errors import AffuseError


def lines_of(path: Path) -> list[str]:
    """Raises AffuseError for a file that cannot be read as text."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AffuseError(f"{path} cannot be read: {error}. Unpack it again.") from None


def number(path: Path, line: int, name: str, text: str) -> float:
    """A field as a number; NaN where it is empty or says so. Raises AffuseError naming file, line and field."""
    try:
        return float(text.strip() or "nan")
    except ValueError:
        raise AffuseError(f"{path}, line {line}: {name} is {text.strip()!r}, not a number.") from None


def table(path: Path, separator: str = ",", head: Iterable[str] | None = None) -> list[tuple[int, dict[str, str]]]:
    """Rows (line, {column: text}) of a file with separators. head: its columns, where the file does not name them.

    Raises AffuseError naming file and line for a row of another length, and for a file without rows.
    """
    try:
        rows = list(csv.reader(lines_of(path), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise AffuseError(f"{path} is no table: {error}. Unpack it again.") from None
    names = [name.strip() for name in (head or (rows[0] if rows else ()))]
    found = []
    for line, row in enumerate(rows[0 if head else 1 :], start=1 if head else 2):
        if any(map(str.strip, row)):
            if len(row) != len(names):
                raise AffuseError(f"{path}, line {line}: {len(row)} fields, expected {len(names)}: {', '.join(names)}.")
            found.append((line, dict(zip(names, map(str.strip, row), strict=True))))
    if not found:
        raise AffuseError(f"{path} has no rows. Unpack it again.")
    return found


def columns(path: Path, rows: list[tuple[int, dict[str, str]]], names: Iterable[str]) -> np.ndarray:
    """Columns of numbers (rows, names). Raises AffuseError naming file and line, or the column that is not there."""
    names = list(names)
    if absent := [name for name in names if name not in rows[0][1]]:
        raise AffuseError(f"{path}, line 1: no column {absent[0]!r} among {', '.join(rows[0][1])}.")
    return np.array([[number(path, line, name, row[name]) for name in names] for line, row in rows])


def arff(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows (line, {attribute: text}) of an ARFF file with dense data. Raises AffuseError as `table` does."""
    names: list[str] = []
    found = []
    inside = False
    for line, text in enumerate(map(str.strip, lines_of(path)), start=1):
        if not text or text.startswith("%"):
            continue
        if not inside:
            inside = text.lower().startswith("@data")
            if text.lower().startswith("@attribute"):
                names.append(text.split(maxsplit=2)[1].strip("'\""))
            continue
        fields = [field.strip() for field in text.split(",")]
        if len(fields) != len(names):
            raise AffuseError(f"{path}, line {line}: {len(fields)} fields, expected {len(names)}: {', '.join(names)}.")
        found.append((line, dict(zip(names, fields, strict=True))))
    if not found:
        raise AffuseError(f"{path} has no rows after @data. Unpack it again.")
    return found
