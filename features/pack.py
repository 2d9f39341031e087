"""Packs: many records in one HDF5 file, for a store of few files, and so for transport and fast reading.

    affuse pack
    {"end": …, "format": 2, "records": n, "start": …, "structure": sha256}   (one line)
    [bytes, mtime, entry, first byte] of each record, a line each
    sha256 of the lines above, then zeros up to byte `start`, where HDF5 begins
    /<name of the shard>   the bytes of each, in one piece
    the same lines from byte `end` on, and the number `end` in 20 digits

A record in a pack is its shard, byte for byte, with its own seal and checksums: read alone, damaged alone. The lines
prove the rest, and stand at both ends so that no damage at one place takes more than a record along. What is written
goes to a file of its own always, which counts instead of the record in the pack; of several packs the last one does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import h5py
import numpy as np

from affuse.features.entry import Entry
from affuse.features.layout import folder_of, shard_name
from affuse.features.place import Slice, opened
from affuse.features.record import FORMAT_VERSION, canonical
from affuse.features.seal import DamagedError, Problem, newer, noting, older, read_entry, structure
from affuse.files import PIECE, Sink, partial_of, publish

MAGIC = b"affuse pack\n"
DIGITS = 20
LONGEST = 2**28  # bytes of a table
TABLE = "its table is damaged"


@dataclass(frozen=True)
class Table:
    """What a pack says of itself: lines by video id, where HDF5 begins and ends, and the sha256 of what in between is
    of no record."""

    path: Path
    lines: dict[str, str]
    start: int
    end: int
    structure: str

    def __getitem__(self, video_id: str) -> Slice:
        size, _, _, first = json.loads(self.lines[video_id])
        return Slice(self.path, first, size, video_id)

    def mtime(self, video_id: str) -> int:
        """When the shard was written, ns."""
        return json.loads(self.lines[video_id])[1]

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """The videos by the folder that their shards belong in."""
        found: dict[str, list[str]] = {}
        for video_id in self.lines:
            found.setdefault(folder_of(shard_name(video_id)), []).append(video_id)
        return found

    @property
    def slices(self) -> list[Slice]:
        return [self[video_id] for video_id in self.lines]


@dataclass(frozen=True)
class Loose:
    """A shard that is to be packed, as it was when it was looked at."""

    path: Path
    size: int
    mtime: int
    inode: int
    entry: Entry

    @classmethod
    def of(cls, path: Path) -> Loose:
        """Raises ChangedError where it is gone or not whole."""
        try:
            stat = path.stat()
            return cls(path, stat.st_size, stat.st_mtime_ns, stat.st_ino, read_entry(path))
        except (OSError, DamagedError):
            raise ChangedError from None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Raises ChangedError where another file is there by now, or none."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            raise ChangedError from None
        with file:
            if not self.is_of(os.fstat(file.fileno())):
                raise ChangedError
            yield file

    def is_of(self, stat: os.stat_result) -> bool:
        return (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (self.size, self.mtime, self.inode)

    def remove(self) -> None:
        """Remove the file, unless another process has put a newer one in its place."""
        taken = partial_of(self.path)
        with suppress(FileNotFoundError):
            if not self.is_of(self.path.stat()):
                return
            os.rename(self.path, taken)
            if not self.is_of(taken.stat()) and not self.path.exists():
                os.rename(taken, self.path)
            taken.unlink(missing_ok=True)


class ChangedError(Exception):
    """A shard is not what it was."""


def write_pack(folder: Path, shards: list[Loose]) -> Path:
    """Make a pack of these in `folder`; where it is.

    Raises ChangedError where one of them has changed, AffuseError where it cannot be written.
    """
    lines = [[loose.size, loose.mtime, loose.entry.row] for loose in shards]
    names = [loose.path.name for loose in shards]
    target = folder / f"{names[0][-11:-3]}-{names[-1][-11:-3]}-{token_hex(4)}.h5"
    start = 1 << (1024 + len(canonical(lines)) + 32 * len(lines)).bit_length()

    def fill(sink: Sink) -> None:
        with h5py.File(sink, "w", userblock_size=start) as file:
            for loose in shards:
                dataset = file.create_dataset(loose.path.name, (loose.size,), "u1")
                with loose.open() as shard:
                    for first in range(0, loose.size, PIECE):
                        dataset[first : first + PIECE] = np.frombuffer(shard.read(PIECE), "u1")
            file.flush()
            places = [file[name].id.get_offset() for name in names]
        end = sink.seek(0, 2)
        ranges = [(first, first + loose.size) for first, loose in zip(places, shards, strict=True)]
        told = [canonical([*line, first]) for line, first in zip(lines, places, strict=True)]
        head: dict[str, object] = {"end": end, "format": FORMAT_VERSION, "records": len(told), "start": start}
        head["structure"] = structure(sink, start, end, ranges)
        table = MAGIC + "\n".join([canonical(head), *told, ""]).encode()
        table += hashlib.sha256(table).hexdigest().encode() + b"\n"
        sink.write(table + b"%020d" % end)
        sink.seek(0)
        sink.write(table)

    def check(written: Path) -> None:
        for place, loose in zip(read_table(written).slices, shards, strict=True):
            with opened(place) as packed, loose.open() as shard:
                while piece := shard.read(PIECE):
                    if packed.read(len(piece)) != piece:
                        raise DamagedError(written, "it does not hold what was written", place.id)
        for problem in verify_pack(written):
            raise DamagedError(written, problem.reason)

    publish(target, fill, check)
    return target


def read_table(path: Path) -> Table:
    """By its first copy, or else its last. Raises UsageError for a newer format, DamagedError where none is whole."""
    with _readable(path) as file:
        return _table(path, file, 0) or _table(path, file, _last(file)) or _none(path)


def verify_pack(path: Path) -> list[Problem]:
    """What is wrong with a pack but for the records in it. Raises UsageError for a newer format."""
    problems: list[Problem] = []
    with noting(problems):
        table = read_table(path)
        with _readable(path) as file:
            size = file.seek(0, 2)
            copies = [_text(file, 0), _text(file, table.end)]
            file.seek(len(copies[0]))
            blank = file.read(max(0, table.start - len(copies[0]))).strip(b"\0") == b""
            if copies[0] != copies[1] or not blank or _last(file) != table.end:
                raise DamagedError(path, TABLE)
            ranges = [(place.first, place.first + place.size) for place in table.slices]
            whole = size == table.end + len(copies[0]) + DIGITS
            if not whole or structure(file, table.start, table.end, ranges) != table.structure:
                raise DamagedError(path, "its structure is not the one that was written")
    return problems


@contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DamagedError(path, f"it cannot be read ({error.strerror})") from None


def _text(file: BinaryIO, first: int) -> bytes:
    """The lines from this byte on, to the first that is as long as their digest."""
    file.seek(first)
    lines = [file.readline(len(MAGIC)), file.readline(LONGEST)]
    while len(lines[-1]) not in (0, 65):
        lines.append(file.readline(LONGEST))
    return b"".join(lines)


def _table(path: Path, file: BinaryIO, first: int) -> Table | None:
    """The table from this byte on; None where it is not whole."""
    text = _text(file, first)
    if not text.startswith(MAGIC) or hashlib.sha256(text[:-65]).hexdigest().encode() + b"\n" != text[-65:]:
        return None
    try:
        head, *lines = text[len(MAGIC) : -65].decode().splitlines()
        facts = json.loads(head)
        if facts["format"] > FORMAT_VERSION:
            raise newer(path, facts["format"])
        if facts["format"] < FORMAT_VERSION:
            raise DamagedError(path, older(facts["format"]))
        known = {json.loads(line)[2][0]: line for line in lines}
        return Table(path, known, int(facts["start"]), int(facts["end"]), facts["structure"])
    except (LookupError, RecursionError, TypeError, ValueError):  # sealed, but not by us
        return None


def _last(file: BinaryIO) -> int:
    """Where the last copy of the table begins, by the end of the file; 0 where that does not say."""
    size = file.seek(0, 2)
    file.seek(max(0, size - DIGITS))
    digits = file.read()
    return min(int(digits), size) if digits.isdigit() else 0


def _none(path: Path) -> Table:
    raise DamagedError(path, TABLE)
