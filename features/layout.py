"""How a record's arrays lie in a shard: names, types, chunks, the contract they keep, digests."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from affuse.errors import RecordError
from affuse.features.parts import MODALITIES, AudioFeatures, TextFeatures, VisualFeatures
from affuse.features.record import VideoFeatures, canonical

if TYPE_CHECKING:
    import h5py

RECORDS = {"visual": VisualFeatures, "audio": AudioFeatures, "text": TextFeatures}
DTYPES = {
    "embedding": "<f2",
    "time": "<f8",
    "start": "<f8",
    "end": "<f8",
    "valid": "|b1",
    "box": "<f4",
    "confidence": "<f4",
    "word": "|S",  # all of one length: HDF5 keeps texts of many lengths where no checksum reaches
}
CHUNK = 2**19  # bytes; what one checksum guards
ROWS = 4096  # of an array looked through at once
WIDEST = 2**16  # bytes; no row of an embedding has more


def shard_name(video_id: str) -> str:
    """The file name of a video's shard: what of its id any file system takes, and 8 digits of its sha256."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", video_id).lstrip(".")[:80] or "_"
    return f"{slug}-{hashlib.sha256(video_id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}.h5"


def shard_path(video_id: str) -> str:
    """Where a video's shard lies in a store: its name, in a folder named by the first two of those digits."""
    name = shard_name(video_id)
    return f"{folder_of(name)}/{name}"


def folder_of(name: str) -> str:
    """The folder that a shard of this name belongs in."""
    return name[-11:-9]


def names(modality: str) -> list[str]:
    """The arrays of a modality, in the order of its record."""
    return [f.name for f in fields(RECORDS[modality]) if f.name in DTYPES]


VIEWS = "visual/views"  # the group of the further views, each with the layout of visual/embedding
PATHS = [f"{modality}/{name}" for modality in MODALITIES for name in names(modality)]


def paths(views: Iterable[str]) -> list[str]:
    """The datasets of a shard that has these further views."""
    return [*PATHS, *(f"{VIEWS}/{view}" for view in views)]


def kind(path: str) -> str:
    """Which of `DTYPES` a dataset is: a view is an embedding."""
    return "embedding" if path.startswith(f"{VIEWS}/") else path.rpartition("/")[2]


def arrays_of(video: VideoFeatures) -> dict[str, np.ndarray]:
    """Every array of a record under its path, as it is stored.

    Raises RecordError where one breaks the record's contract, so that nothing wrong is ever kept.
    """
    arrays = {}
    for modality in MODALITIES:
        part = getattr(video, modality)
        for name in names(modality):
            arrays[f"{modality}/{name}"] = encode(part.word) if name == "word" else getattr(part, name)
    arrays |= {f"{VIEWS}/{view}": array for view, array in video.visual.views.items()}
    for path, array in arrays.items():
        embedding = getattr(video, path.partition("/")[0]).embedding
        if problem := _problem(kind(path), array, embedding.shape[0], embedding.shape[-1]):
            raise RecordError(f"The features of video {video.id!r} cannot be kept: {path} {problem}.")
    return {path: np.ascontiguousarray(array) for path, array in arrays.items()}


def _problem(name: str, array: np.ndarray, rows: int, width: int) -> str:
    if not array.dtype.str.startswith(DTYPES[name]):
        return f"is {array.dtype}, not {np.dtype(DTYPES[name])}"
    shape = {"embedding": (rows, width), "box": (rows, 4)}.get(name, (rows,))
    if array.shape != shape:
        return f"has shape {array.shape}, not {shape}"
    if name in ("embedding", "time", "start", "end") and not _finite(array):
        return "holds NaN or infinity"
    if name == "time" and (np.diff(array) < 0).any():
        return "goes back in time"
    return ""


def _finite(array: np.ndarray) -> bool:
    return all(np.isfinite(array[i : i + ROWS]).all() for i in range(0, len(array), ROWS))


def well_laid(dataset: h5py.Dataset, path: str) -> bool:
    """Whether a stored dataset may be read: a shard from elsewhere must not make us read other files, or fill the
    memory with rows it has not."""
    own, group = kind(path), dataset.file[path.partition("/")[0]]
    clock = group[names(path.partition("/")[0])[1]]  # time or start: always stored, with 8 bytes a row
    return (
        dataset.dtype.str.startswith(DTYPES[own])
        and dataset.ndim == (2 if own in ("embedding", "box") else 1)
        and dataset.shape[0] == clock.shape[0] <= clock.id.get_storage_size() // 8
        and dataset.dtype.itemsize * math.prod(dataset.shape[1:]) <= WIDEST
        and (own != "embedding" or dataset.shape == group["embedding"].shape)
        and dataset.chunks is not None
        and dataset.fletcher32
    )


def encode(words: Iterable[str]) -> np.ndarray:
    """Words as UTF-8 of one length. NUL, which pads them, is no part of a word and left out."""
    encoded = [str(word).replace("\0", "").encode("utf-8", "surrogatepass") for word in words]
    return np.array(encoded, f"S{max(map(len, encoded), default=0) or 1}")


def decode(words: np.ndarray) -> np.ndarray:
    return np.array([word.decode("utf-8", "surrogatepass") for word in words], str)


def chunk_shape(array: np.ndarray) -> tuple[int, ...]:
    """Rows of CHUNK bytes at most, shared out evenly, since every chunk takes its full size on disk."""
    row = max(1, array.itemsize * math.prod(array.shape[1:]))
    rows = max(1, len(array))
    pieces = math.ceil(rows / max(1, CHUNK // row))
    return (math.ceil(rows / pieces), *(max(1, n) for n in array.shape[1:]))


def chunk_count(array: np.ndarray) -> int:
    return math.ceil(len(array) / chunk_shape(array)[0])


def array_digest(dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> str:
    """sha256 of an array given in blocks: of its type, its shape and its bytes."""
    digest = hashlib.sha256(canonical([dtype.str, list(shape)]).encode())
    for block in blocks:
        digest.update(as_bytes(block).data)
    return digest.hexdigest()


def as_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
