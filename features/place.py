"""Where the bytes of a record's shard are: in a file of its own, or in a pack."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affuse.features.layout import shard_path


@dataclass(frozen=True)
class Slice:
    """`size` bytes from byte `first` on of the pack at `path`, which are the shard of a video."""

    path: Path
    first: int
    size: int
    id: str


Place = Path | Slice


def file_of(place: Place) -> Path:
    """The file that the bytes are in."""
    return place.path if isinstance(place, Slice) else place


def name_of(place: Place) -> str:
    """The folder and name that a shard of these bytes has, or would have outside of its pack."""
    return shard_path(place.id) if isinstance(place, Slice) else f"{place.parent.name}/{place.name}"


def opened(place: Place) -> io.BufferedReader:
    """The bytes of the shard, and no others, as a file. Raises OSError."""
    if isinstance(place, Slice):
        return io.BufferedReader(_Window(place))
    return place.open("rb")


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, place: Slice):
        self._file = place.path.open("rb", buffering=0)
        self._first, self._size, self._at = place.first, place.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        self._file.seek(self._first + self._at)
        read = self._file.readinto(view) if len(view) else 0
        self._at += read
        return read

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
