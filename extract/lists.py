"""Lists of videos: a text file with a path on each line, or a table, CSV or Parquet, which may say of each video what
it is called and what is given beside it. Paths are from where the list lies."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from affuse.errors import UsageError, first_line

TABLES = (".csv", ".parquet")
ENDINGS = (".txt", *TABLES)  # by which a file among videos is known as a list of them
COLUMNS = ("path", "id", "faces", "transcript")


@dataclass(frozen=True)
class Listed:
    """A line of a list: a file or folder, and, of a file in a table, its id, folder of face crops and transcript."""

    path: Path
    id: str = ""
    faces: Path | None = None
    transcript: Path | None = None


def is_list(place: Path) -> bool:
    return place.suffix.lower() in ENDINGS and place.is_file()


def read_list(place: Path) -> list[Listed]:
    """Raises UsageError where the list cannot be read, names nothing, or is a table of other columns."""
    kind = place.suffix.lower()
    try:
        listed = list(_rows(place) if kind in TABLES else _lines(place))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = f"a table of the columns {', '.join(COLUMNS)}" if kind in TABLES else "a text file of paths"
        raise UsageError(f"The list {place} cannot be read: {first_line(error)}. It is {what}.") from None
    if not listed:
        raise UsageError(f"No videos: the list {place} names none. It is a text file with a path on each line.")
    return listed


def given_in(place: Path | None) -> tuple[bool, bool]:
    """Whether a list gives face crops, and transcripts. Raises as `read_list` does."""
    if place is None or place.suffix.lower() not in TABLES:
        return False, False
    listed = read_list(place)
    return any(line.faces for line in listed), any(line.transcript for line in listed)


def _lines(place: Path) -> Iterator[Listed]:
    with place.open(encoding="utf-8-sig") as file:
        for line in map(str.strip, file):
            if line and not line.startswith("#"):
                yield Listed(place.parent / line)


def _rows(place: Path) -> Iterator[Listed]:
    for number, row in enumerate(_table(place), start=1):
        if not row.get("path"):
            raise UsageError(f"The list {place} has no path in row {number}. Give one, or take the row out.")
        beside = {name: place.parent / row[name] for name in ("faces", "transcript") if row.get(name)}
        yield Listed(place.parent / row["path"], row.get("id") or "", **beside)


def _table(place: Path) -> Iterator[dict[str, str]]:
    """Its rows, one after the other."""
    if place.suffix.lower() == ".csv":
        with place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            _check(place, reader.fieldnames or [])
            yield from reader
        return
    if find_spec("pyarrow") is None:
        raise UsageError(
            f"The list {place} needs pyarrow, which is not installed: pip install 'affuse[parquet]'; or give a CSV."
        )
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(place) as file:
            _check(place, file.schema_arrow.names)
            for batch in file.iter_batches():
                yield from ({name: str(value or "") for name, value in row.items()} for row in batch.to_pylist())
    except ArrowException as error:
        raise UsageError(f"The list {place} cannot be read: {first_line(error)}. It is no Parquet file.") from None


def _check(place: Path, columns: Iterable[str]) -> None:
    named = list(columns)
    if "path" not in named or not set(named) <= set(COLUMNS):
        raise UsageError(
            f"The list {place} has the columns {', '.join(map(str, named)) or '(none)'}; a table of videos has path, "
            "and may have id, faces and transcript."
        )
