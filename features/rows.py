"""Rows of embeddings, read without HDF5: the seal says where each piece of them lies, and its checksum.

HDF5 takes one thread of a process at a time and several times as long as the reading, most of it for short videos. Here
a piece is read into its place and its CRC-32 compared, by as many threads as there are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from io import BufferedReader

import h5py
import numpy as np

from affuse.features.layout import kind
from affuse.features.place import Place, file_of, opened
from affuse.features.seal import DamagedError, check_open

ITEM, LARGEST = 2, 2**24  # bytes of a float16, and of a piece that may be
Pieces = tuple[int, list[tuple[int, int] | None]]  # rows of each; first byte and CRC-32, None where all are zeros


def pieces_of(file: h5py.File, arrays: dict[str, np.ndarray]) -> dict[str, Pieces]:
    """Those of the embeddings among these arrays, which are in the file."""
    return {path: _pieces(file[path], array) for path, array in arrays.items() if kind(path) == "embedding"}


def _pieces(dataset: h5py.Dataset, array: np.ndarray) -> Pieces:
    step, places = dataset.chunks[0], {}
    dataset.id.chunk_iter(lambda chunk: places.update({chunk.chunk_offset[0]: chunk.byte_offset}))
    starts = range(0, len(array), step)
    return step, [(places[row], zlib.crc32(array[row : row + step].data)) if row in places else None for row in starts]


def read_rows(place: Place, wanted: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Read some rows of embeddings into arrays that are there: of each (dataset, rows (K,), rising, array (K, width)).

    A piece is in memory besides. Raises UsageError for a newer format, DamagedError where the seal or what is read is
    not what was written.
    """
    try:
        with opened(place) as file:
            entry, seal = check_open(place, file, False)
            for name, rows, out in wanted:
                part = getattr(entry, name.partition("/")[0])
                try:
                    _read(file, seal["rows"][name], rows, out, part.rows, part.width)
                except (LookupError, OSError, TypeError, ValueError, ZeroDivisionError) as error:
                    raise DamagedError(file_of(place), str(error), entry.id, name) from None
    except OSError as error:
        raise DamagedError(file_of(place), f"it cannot be read ({error.strerror})") from None


def _read(file: BufferedReader, pieces: Pieces, rows: np.ndarray, out: np.ndarray, many: int, width: int) -> None:
    """Of `many` rows of a dataset these. Raises ValueError where they are not what was written."""
    step, places = pieces
    if len(places) != -(-many // step) or step * width * ITEM > LARGEST or out.shape[1:] != (width,):
        raise ValueError("its rows cannot be where they are said to be")
    for first, place in zip(range(0, many, step), places, strict=True):
        stop = min(first + step, many)
        low, high = np.searchsorted(rows, (first, stop))
        if low == high:
            continue
        straight = high - low == stop - first and out.flags.c_contiguous
        piece = out[low:high] if straight else np.empty((stop - first, width), np.float16)
        if place is None:
            piece[:] = 0
        else:
            file.seek(place[0])
            if file.readinto(piece.data.cast("B")) != piece.nbytes or zlib.crc32(piece.data) != place[1]:
                raise ValueError("it cannot be read (it does not hold what was written)")
        if not straight:
            np.take(piece, rows[low:high] - first, 0, out[low:high], "clip")
