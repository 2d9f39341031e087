"""The seal on a shard: three lines of text before its HDF5 part, which prove the file's structure.

HDF5 takes a damaged structure at its word: it may crash the process, or read a lost chunk as zeros. So every
byte of a shard that HDF5 does not itself guard by a checksum, which is all but the chunks of its datasets, is
proven here before HDF5 sees the file.

    affuse features
    {"arrays": {dataset: …}, "data": [[first byte, end], …], "entry": ["clip01", …], "format": 2, "size": …,
     "start": …, "structure": sha256}   (one line)
    sha256 of the lines above, then zeros up to byte `start`, where HDF5 begins

`entry` is the record in short, see features/entry.py: a store learns what it has from these lines alone. `arrays`
says where the pieces of each dataset are, see features/rows.py, for who reads without HDF5.

These lines, and "format" in them, stay in every future format, so that any version can tell what it has before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from affuse.errors import AffuseError, UsageError
from affuse.features.entry import Entry
from affuse.features.layout import shard_name, shard_path
from affuse.features.place import Place, Slice, file_of, name_of, opened
from affuse.features.record import FORMAT_VERSION, canonical

MAGIC = b"affuse features\n"
LONGEST = 2**24  # bytes of a seal
BLOCK = 2**20  # bytes read at once


@dataclass(frozen=True)
class Problem:
    """Something wrong in a store. `video` and `dataset` are empty where they cannot be told."""

    video: str
    dataset: str
    file: str
    reason: str


class DamagedError(AffuseError):
    """A shard is not what was written; `problem` says where."""

    def __init__(self, path: Path, reason: str, video: str = "", dataset: str = ""):
        self.problem = Problem(video, dataset, path.name, reason)
        self.parts = path, reason, video, dataset
        what = f"Video {video!r} in the feature store" if video else "The feature store"
        where = f", dataset {dataset}" if dataset else ""
        advice = "Run affuse extract again with --verify: it remakes the video."
        super().__init__(f"{what} is damaged: {path}{where}: {reason}. {advice}")

    def __reduce__(self) -> tuple:
        return DamagedError, self.parts


@contextmanager
def noting(problems: list[Problem]) -> Iterator[None]:
    """What is found damaged ends what is done in this context, and is noted."""
    try:
        yield
    except DamagedError as error:
        problems.append(error.problem)


def room(entry: Entry, chunks: Mapping[str, int]) -> int:
    """Bytes to leave before the HDF5 part: a power of two, as HDF5 wants, that holds any seal of datasets of so many
    chunks each."""
    needed = 1024 + len(canonical(entry.row)) + sum(32 + len(canonical(name)) + 64 * n for name, n in chunks.items())
    return 1 << (needed - 1).bit_length()


def write_seal(file: BinaryIO, entry: Entry, start: int, chunks: Iterable[Sequence[int]], arrays: dict) -> None:
    """Seal a finished file whose HDF5 part begins at byte `start`, with its chunks (first byte, end), and the pieces
    of its arrays."""
    data: list[list[int]] = []
    for first, end in sorted(map(tuple, chunks)):
        if data and data[-1][1] == first:
            data[-1][1] = end
        else:
            data.append([first, end])
    size = file.seek(0, 2)
    facts = {"arrays": arrays, "data": data, "entry": entry.row, "format": FORMAT_VERSION, "size": size, "start": start}
    facts["structure"] = structure(file, start, size, data)
    lines = MAGIC + canonical(facts).encode() + b"\n"
    lines += hashlib.sha256(lines).hexdigest().encode() + b"\n"
    assert len(lines) <= start
    file.seek(0)
    file.write(lines)


def check_seal(place: Place) -> Entry:
    """The record in short, of a shard whose structure is as it was written and that lies where its video's does, or is
    hidden as yet.

    Raises UsageError for a newer format, DamagedError for any other file.
    """
    return _read(place, True)


def read_entry(place: Place) -> Entry:
    """The same by the seal and the size alone: a few milliseconds sooner, and blind to damage further on."""
    return _read(place, False)


def _read(place: Place, whole: bool) -> Entry:
    path = file_of(place)
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise DamagedError(path, "it cannot be read (Not a file)")
        with opened(place) as file:
            return check_open(place, file, whole)[0]
    except OSError as error:
        raise DamagedError(path, f"it cannot be read ({error.strerror})") from None


def check_open(place: Place, file: BinaryIO, whole: bool) -> tuple[Entry, dict]:
    """The record in short and all that the seal of an open shard says. Raises as `check_seal`, and OSError."""
    path, name = file_of(place), name_of(place)
    entry, seal = _check(place, file, whole)
    right = shard_path(entry.id)
    if not path.name.startswith(".") and name != right:
        raise DamagedError(path, f"it lies where no shard of this video does, which would be {right}", entry.id)
    return entry, seal


def _check(place: Place, file: BinaryIO, whole: bool) -> tuple[Entry, dict]:
    path = file_of(place)
    magic, text, digest = file.readline(len(MAGIC)), file.readline(LONGEST), file.readline(65)
    video_id = place.id if isinstance(place, Slice) else _claimed(path.name, text)
    if hashlib.sha256(magic + text).hexdigest().encode() + b"\n" != digest:
        ours = magic == MAGIC or video_id
        reason = "its first lines are damaged" if ours else "it is not a shard of affuse; move it elsewhere"
        raise DamagedError(path, reason, video_id)
    try:
        seal = json.loads(text)
        if seal["format"] > FORMAT_VERSION:
            raise newer(path, seal["format"])
        if seal["format"] < FORMAT_VERSION:
            raise DamagedError(path, older(seal["format"]), video_id)
        size, start, data = file.seek(0, 2), seal["start"], seal["data"]
        if size != seal["size"]:
            raise DamagedError(path, f"it has {size} bytes where {seal['size']} were written", video_id)
        entry, lines = Entry.checked(seal["entry"]), len(magic + text + digest)
        edges = [lines, start, *chain.from_iterable(data), size]
        if edges != sorted(edges) or start > 2 * LONGEST:
            raise ValueError("its seal cannot be")
        if whole:
            file.seek(lines)
            if file.read(start - lines).strip(b"\0") or structure(file, start, size, data) != seal["structure"]:
                raise DamagedError(path, "its structure is not the one that was written", video_id)
        return entry, seal
    except (KeyError, RecursionError, TypeError, ValueError) as error:  # sealed, but not by us
        raise DamagedError(path, f"it is not a shard of affuse ({error!r})", video_id) from None


def newer(path: Path, version: int) -> UsageError:
    return UsageError(
        f"{path} has format version {version}, made by a newer affuse; this one reads up to {FORMAT_VERSION}. Update "
        "affuse (pip install --upgrade affuse), or give another store."
    )


def older(version: int) -> str:
    """Why what an older affuse made is made anew."""
    return f"it has format version {version}, which an older affuse made; this one reads {FORMAT_VERSION}"


def _claimed(name: str, text: bytes) -> str:
    """The id in a seal that may be damaged, if it is believable: the file would be named after it."""
    try:
        video_id = json.loads(text)["entry"][0]
        return video_id if isinstance(video_id, str) and shard_name(video_id) == name else ""
    except (LookupError, RecursionError, TypeError, ValueError):
        return ""


def structure(file: BinaryIO, start: int, size: int, data: Sequence[Sequence[int]]) -> str:
    """sha256 of all bytes from `start` to `size` but those of `data`, which is in their order."""
    digest = hashlib.sha256()
    edges = [start, *chain.from_iterable(data), size]
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        file.seek(first)
        while first < end and (block := file.read(min(BLOCK, end - first))):
            digest.update(block)
            first += len(block)
    return digest.hexdigest()
