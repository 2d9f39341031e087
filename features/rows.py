"""Arrays of a record, read without HDF5: the seal says where each piece of them lies, and its checksum.

HDF5 takes one thread of a process at a time and several times as long as the reading, most of it for short videos. Here
a piece is read into its place and its CRC-32 compared, by as many threads as there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import NamedTuple

import h5py
import numpy as np
from zlib_ng.zlib_ng import crc32

from affuse.features.entry import Entry
from affuse.features.layout import DTYPES, WIDEST, as_bytes, decode, kind
from affuse.features.place import Place, file_of, opened
from affuse.features.seal import DamagedError, check_open

LARGEST = 2**24  # bytes of a piece that may be
Pieces = tuple[int, int, list[tuple[int, int] | None]]
"""Bytes of a row; rows of a piece; of each its first byte and CRC-32, None where all are zeros."""


def pieces_of(file: h5py.File, arrays: dict[str, np.ndarray]) -> dict[str, Pieces]:
    """Those of these arrays, which are in the file."""
    return {path: _pieces(file[path], array) for path, array in arrays.items()}


def _pieces(dataset: h5py.Dataset, array: np.ndarray) -> Pieces:
    step, places = dataset.chunks[0], {}
    dataset.id.chunk_iter(lambda chunk: places.update({chunk.chunk_offset[0]: chunk.byte_offset}))
    blocks = {row: as_bytes(array[row : row + step]) for row in range(0, len(array), step)}
    told = [(places[row], crc32(block.data)) if row in places else None for row, block in blocks.items()]
    return array.itemsize * math.prod(array.shape[1:]), step, told


def read_rows(place: Place, wanted: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Read some rows of arrays into those that are there: of each (dataset, rows (K,), rising, array (K, …)).

    A piece is in memory besides. Raises UsageError for a newer format, DamagedError where the seal or what is read is
    not what was written.
    """
    with _sealed(place) as shard:
        for name, rows, out in wanted:
            shard.read(name, rows, out)


def read_arrays(place: Place, names: Iterable[str]) -> tuple[Entry, list[np.ndarray]]:
    """The record in short, and these of its arrays. Raises like `read_rows`."""
    with _sealed(place) as shard:
        return shard.entry, [shard.whole(name) for name in names]


class _Sealed(NamedTuple):
    """An open shard and what its seal says."""

    place: Place
    file: BufferedReader
    entry: Entry
    seal: dict

    def whole(self, name: str) -> np.ndarray:
        with self._blaming(name):
            dtype, shape = self._kind_of(name)
            if kind(name) != "embedding" and dtype.itemsize * math.prod(shape) > self.seal["size"]:
                raise ValueError("it cannot have so many rows")
            out = np.empty(shape, dtype)
        self.read(name, np.arange(len(out)), out)
        return decode(out) if kind(name) == "word" else out

    def read(self, name: str, rows: np.ndarray, out: np.ndarray) -> None:
        with self._blaming(name):
            dtype, (many, *row) = self._kind_of(name)
            _, step, places = self.seal["arrays"][name]
            if out.dtype != dtype or out.shape[1:] != (*row,):
                raise ValueError(f"its rows are {dtype} of {row}, not {out.dtype} of {out.shape[1:]}")
            if len(out) != len(rows) or (len(rows) and not 0 <= rows[0] <= rows[-1] < many):
                raise ValueError(f"it has {many} rows, and not those that were asked for")
            for first, place in zip(range(0, many, step), places, strict=True):
                stop = min(first + step, many)
                low, high = np.searchsorted(rows, (first, stop))
                if low == high:
                    continue
                straight = high - low == stop - first and out.flags.c_contiguous
                piece = out[low:high] if straight else np.empty((stop - first, *row), dtype)
                self._fill(piece.reshape(-1).view(np.uint8), place)
                if not straight:
                    np.take(piece, rows[low:high] - first, 0, out[low:high], "clip")

    def _kind_of(self, name: str) -> tuple[np.dtype, tuple[int, ...]]:
        """Type and shape of an array. Raises ValueError where its pieces are not of such a one."""
        own, part = kind(name), getattr(self.entry, name.partition("/")[0])
        width, step, places = self.seal["arrays"][name]
        dtype = np.dtype(f"S{width}" if own == "word" else DTYPES[own])
        shape = (part.rows, *{"embedding": (part.width,), "box": (4,)}.get(own, ()))
        row = dtype.itemsize * math.prod(shape[1:])
        if row != width or row > WIDEST or step * row > LARGEST or len(places) != -(-part.rows // step):
            raise ValueError("its rows cannot be where they are said to be")
        return dtype, shape

    def _fill(self, piece: np.ndarray, place: tuple[int, int] | None) -> None:
        """Read bytes from where they are said to be."""
        if place is None:
            piece[:] = 0
            return
        first, checksum = place
        self.file.seek(first)
        if self.file.readinto(piece.data) != len(piece) or crc32(piece.data) != checksum:
            raise ValueError("it cannot be read (it does not hold what was written)")

    @contextmanager
    def _blaming(self, name: str) -> Iterator[None]:
        """Whatever goes wrong with an array is raised as its damage."""
        try:
            yield
        except (LookupError, OSError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DamagedError(file_of(self.place), str(error), self.entry.id, name) from None


@contextmanager
def _sealed(place: Place) -> Iterator[_Sealed]:
    try:
        with opened(place) as file:
            yield _Sealed(place, file, *check_open(place, file, False))
    except OSError as error:
        raise DamagedError(file_of(place), f"it cannot be read ({error.strerror})") from None
