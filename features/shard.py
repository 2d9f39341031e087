"""One video's features in one HDF5 file, checked from the first byte to the last.

    /            format, id, provenance, source_*, fps, duration, frames; local; features_digest, digest
    /visual      status, reason;  embedding (T, D) time (T,) valid (T,) box (T, 4) confidence (T,)
    /audio       status, reason;  embedding (T, D) time (T,)
    /text        status, reason;  embedding (W, D) start (W,) end (W,) word (W,) confidence (W,)

Three nets catch damage. Every dataset is chunked under fletcher32, which HDF5 checks at each read, and carries the
sha256 of its contents. `features_digest` covers all attributes and those sha256, so each opening proves them for the
price of the attributes; `digest` adds `local`, the facts in which two equal runs differ (seconds, mtime).
Text attributes are JSON, since HDF5 text holds neither NUL nor a lone surrogate, and file names may have both.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np

from features.errors import AffuseError, UsageError
from features.publish import publish
from features.record import (
    FORMAT_VERSION,
    MODALITIES,
    AudioFeatures,
    Provenance,
    Source,
    Status,
    TextFeatures,
    VideoFeatures,
    VisualFeatures,
    canonical,
)

RECORDS = {"visual": VisualFeatures, "audio": AudioFeatures, "text": TextFeatures}
CHUNK = 2**19  # bytes; what one checksum guards
BLOCK = 2**23  # bytes read at once where only a digest is wanted
MAX_WIDTH = 2**16  # no embedding is wider
LOCAL, FEATURES_DIGEST, DIGEST = "local", "features_digest", "digest"
DTYPES = {"embedding": "<f2", "time": "<f8", "start": "<f8", "end": "<f8", "valid": "|b1"}
DTYPES |= {"box": "<f4", "confidence": "<f4", "word": "|S"}


class DamagedError(AffuseError):
    """A shard is not what was written. `video` and `dataset` are empty where they cannot be told."""

    def __init__(self, file: Path, reason: str, video: str = "", dataset: str = ""):
        self.file, self.reason, self.video, self.dataset = file, reason, video, dataset
        what = f"Video {video!r} in the feature store" if video else "The feature store"
        where = f", dataset {dataset}" if dataset else ""
        super().__init__(
            f"{what} is damaged: {file}{where}: {reason}. Run affuse extract again: it remakes the video."
        )

    @property
    def problem(self) -> Problem:
        return Problem(self.video, self.dataset, self.file.name, self.reason)


@dataclass(frozen=True)
class Problem:
    """Something wrong in a store. `video` and `dataset` are empty where they cannot be told."""

    video: str
    dataset: str
    file: str
    reason: str


@dataclass(frozen=True)
class Part:
    """A modality in a header: why it has features or has none, and how many rows of what width."""

    status: Status
    reason: str
    rows: int
    width: int


@dataclass(frozen=True)
class Header:
    """All that a shard holds but its arrays."""

    id: str
    source: Source
    fps: float
    duration: float
    frames: int
    visual: Part
    audio: Part
    text: Part
    seconds: dict[str, float]
    provenance: Provenance
    features_digest: str
    digest: str


def shard_name(video_id: str) -> str:
    """The file name of a video's shard: what of its id any file system takes, and 8 digits of its sha256."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", video_id).lstrip(".")[:80] or "_"
    return f"{slug}-{hashlib.sha256(video_id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}.h5"


# ---- writing


def write_shard(path: Path, video: VideoFeatures, provenance: Provenance) -> None:
    """Make or replace the shard at `path`, whole or not at all.

    Raises AffuseError where the file cannot be written (a full disk) or the record breaks its contract.
    """
    arrays = _arrays(video)

    def fill(sink) -> None:
        # The default libver: files written with "latest" never open again after a kill.
        with h5py.File(sink, "w") as file:
            _fill(file, video, provenance, arrays)

    publish(path, fill, verify_or_raise)


def _fill(
    file: h5py.File, video: VideoFeatures, provenance: Provenance, arrays: dict[str, np.ndarray]
) -> None:
    _put(file, "format", FORMAT_VERSION)
    _put(file, "id", video.id)
    _put(file, "provenance", provenance.as_dict())
    _put(file, "source_name", video.source.name)
    _put(file, "source_size", video.source.size)
    _put(file, "source_sha256", video.source.sha256)
    _put(file, "fps", float(video.fps))
    _put(file, "duration", float(video.duration))
    _put(file, "frames", int(video.frames))
    for modality in MODALITIES:
        part = getattr(video, modality)
        group = file.create_group(modality)
        _put(group, "status", part.status.value)
        _put(group, "reason", part.reason)
    for name, array in arrays.items():
        dataset = file.create_dataset(
            name,
            array.shape,
            array.dtype,
            chunks=_chunks(array),
            maxshape=(None, *(n or None for n in array.shape[1:])),
            fletcher32=True,
        )
        # A video without a face is all zeros, which is what chunks that were never written read as.
        if name != "visual/embedding" or _bytes(array).any():
            dataset[...] = array
        _put(dataset, "sha256", _sha256(array.dtype, array.shape, [array]))
    features_digest = _digest(_describe(file))
    local = {"mtime_ns": video.source.mtime_ns, "seconds": video.seconds}
    _put(file, LOCAL, local)
    _put(file, FEATURES_DIGEST, features_digest)
    _put(file, DIGEST, _digest([features_digest, canonical(local)]))


def _put(node, name: str, value) -> None:
    node.attrs[name] = value if isinstance(value, (int, float)) else canonical(value)


def _arrays(video: VideoFeatures) -> dict[str, np.ndarray]:
    """Every array under its path, as it is stored. Raises AffuseError where one breaks the record's contract."""
    arrays = {}
    for modality in MODALITIES:
        part = getattr(video, modality)
        rows = len(part.embedding)
        for name in _names(modality):
            array = _encode(part.word) if name == "word" else np.ascontiguousarray(getattr(part, name))
            shape = {"embedding": (rows, array.shape[-1]), "box": (rows, 4)}.get(name, (rows,))
            problem = _problem(name, array, shape)
            if problem:
                raise AffuseError(
                    f"The features of video {video.id!r} are not kept: {modality}/{name} {problem}."
                )
            arrays[f"{modality}/{name}"] = array
    return arrays


def _problem(name: str, array: np.ndarray, shape: tuple[int, ...]) -> str:
    if not array.dtype.str.startswith(DTYPES[name]):
        return f"is {array.dtype}, not {np.dtype(DTYPES[name])}"
    if array.shape != shape:
        return f"has shape {array.shape}, not {shape}"
    if name in ("embedding", "time", "start", "end") and not np.isfinite(array).all():
        return "holds NaN or infinity"
    if name == "time" and (np.diff(array) < 0).any():
        return "goes back in time"
    return ""


def _names(modality: str) -> list[str]:
    """The arrays of a modality."""
    return [f.name for f in fields(RECORDS[modality]) if f.name in DTYPES]


def _encode(words: np.ndarray) -> np.ndarray:
    # Fixed length, because variable-length text lies in HDF5's global heap, where no checksum reaches.
    encoded = [str(word).replace("\0", "").encode("utf-8", "surrogatepass") for word in words]
    return np.array(encoded, f"S{max(map(len, encoded), default=0) or 1}")


def _decode(words: np.ndarray) -> np.ndarray:
    return np.array([word.decode("utf-8", "surrogatepass") for word in words], str)


def _chunks(array: np.ndarray) -> tuple[int, ...]:
    """Rows of about CHUNK bytes, shared out evenly: a chunk takes its full size on disk."""
    rows = max(1, len(array))
    row_bytes = max(1, array.itemsize * math.prod(array.shape[1:]))
    pieces = math.ceil(rows / max(1, CHUNK // row_bytes))
    return (math.ceil(rows / pieces), *(max(1, n) for n in array.shape[1:]))


# ---- digests


def _sha256(dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> str:
    """Digest of an array: its type, its shape and its bytes."""
    digest = hashlib.sha256(canonical([dtype.str, list(shape)]).encode())
    for block in blocks:
        digest.update(_bytes(block).data)
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _digest(value) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _describe(file: h5py.File) -> dict[str, dict]:
    """Everything that equal shards share, arrays by their sha256: {path: {attribute: value}}."""
    paths = ["/"]
    file.visit(paths.append)
    described = {}
    for path in paths:
        node = file[path]
        own = {k: v.item() if isinstance(v, np.generic) else v for k, v in node.attrs.items()}
        if isinstance(node, h5py.Dataset):
            own |= {"dtype": node.dtype.str, "shape": list(node.shape)}
        described[path] = own
    for name in (LOCAL, FEATURES_DIGEST, DIGEST):
        described["/"].pop(name, None)
    return described


# ---- reading


def read_shard(path: Path, modalities: Iterable[str] = MODALITIES) -> tuple[VideoFeatures, Provenance]:
    """The video and how it was made. Modalities not asked for come with no rows but their real status.

    Raises UsageError for a newer format, DamagedError where anything read is not what was written.
    """
    wanted = set(modalities)
    with _open(path) as file:
        header = _header(file)
        parts = {}
        for modality, record in RECORDS.items():
            arrays = {}
            for name in _names(modality):
                dataset = file[modality][name]
                array = (
                    _read(dataset) if modality in wanted else np.zeros((0, *dataset.shape[1:]), dataset.dtype)
                )
                arrays[name] = _decode(array) if name == "word" else array
            part = getattr(header, modality)
            parts[modality] = record(**arrays, status=part.status, reason=part.reason)
    kept = {name: getattr(header, name) for name in ("id", "source", "fps", "duration", "frames", "seconds")}
    return VideoFeatures(**kept, **parts), header.provenance


def read_header(path: Path) -> Header:
    """All but the arrays, proven against `digest`. Raises like `read_shard`."""
    with _open(path) as file:
        return _header(file)


def describe_shard(path: Path) -> dict[str, dict]:
    """Everything that equal shards share, arrays by their sha256: {path: {attribute: value}}."""
    with _open(path) as file:
        _header(file)
        return _describe(file)


def verify_shard(path: Path) -> list[Problem]:
    """Read everything and compare it with its digests; what is wrong, nothing if all is well."""
    problems = []
    try:
        with _open(path) as file:
            try:
                _header(file)
            except DamagedError as error:
                problems.append(error.problem)
            for modality in MODALITIES:
                for name in _names(modality):
                    try:
                        _verify_dataset(file, f"{modality}/{name}")
                    except DamagedError as error:
                        problems.append(error.problem)
    except DamagedError as error:
        problems.append(error.problem)
    except AffuseError as error:
        problems.append(Problem("", "", path.name, str(error)))
    return problems


def verify_or_raise(path: Path) -> None:
    """Raises AffuseError for the first thing wrong with a shard."""
    for problem in verify_shard(path):
        raise DamagedError(path, problem.reason, problem.video, problem.dataset)


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    try:
        path.open("rb").close()
    except OSError as error:
        raise AffuseError(
            f"{path} cannot be read: {error.strerror}. Check the feature store's permissions."
        ) from None
    file = None
    try:
        # Published shards never change, so there is nothing to lock; some network file systems cannot.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except AffuseError:
        raise
    except Exception as error:  # damaged bytes make h5py raise errors of every kind
        raise DamagedError(path, f"it cannot be read as HDF5 ({_first_line(error)})") from error


def _damaged(file: h5py.File, reason: str, dataset: str = "") -> DamagedError:
    path = Path(file.filename)
    try:
        video = json.loads(file.attrs["id"])
        video = video if shard_name(video) == path.name else ""
    except Exception:  # the id itself may be what is damaged
        video = ""
    return DamagedError(path, reason, video, dataset)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _header(file: h5py.File) -> Header:
    try:
        return _parse(file)
    except AffuseError:
        raise
    except Exception as error:  # damaged bytes make h5py raise errors of every kind
        raise _damaged(file, f"its attributes cannot be read ({_first_line(error)})") from error


def _parse(file: h5py.File) -> Header:
    if "format" not in file.attrs:
        raise _damaged(file, "it is not a shard of affuse; move it out of the store")
    version = int(file.attrs["format"])
    if version > FORMAT_VERSION:
        raise UsageError(
            f"{file.filename} has format version {version}, made by a newer affuse; this one reads up to "
            f"{FORMAT_VERSION}. Update affuse (pip install --upgrade affuse), or give another store."
        )
    features_digest = _digest(_describe(file))
    local = json.loads(file.attrs[LOCAL])
    if features_digest != json.loads(file.attrs[FEATURES_DIGEST]):
        raise _damaged(file, "its attributes are not those that were written")
    if _digest([features_digest, canonical(local)]) != json.loads(file.attrs[DIGEST]):
        raise _damaged(file, "its digest is not the one that was written")
    value = {k: json.loads(v) if isinstance(v, str) else v.item() for k, v in file.attrs.items()}
    parts = {}
    for modality in MODALITIES:
        for name in _names(modality):
            _check_layout(file, f"{modality}/{name}")
        text = {k: json.loads(v) for k, v in file[modality].attrs.items()}
        rows, width = file[modality]["embedding"].shape
        parts[modality] = Part(Status(text["status"]), text["reason"], rows, width)
    return Header(
        id=value["id"],
        source=Source(value["source_name"], value["source_size"], value["source_sha256"], local["mtime_ns"]),
        fps=value["fps"],
        duration=value["duration"],
        frames=value["frames"],
        seconds=local["seconds"],
        provenance=Provenance.from_dict(value["provenance"]),
        features_digest=features_digest,
        digest=value[DIGEST],
        **parts,
    )


def _check_layout(file: h5py.File, name: str) -> None:
    """A shard from elsewhere must not make us read other files or fill the memory with rows it does not have."""
    dataset = file[name]
    modality, _, own = name.partition("/")
    clock = file[modality][_names(modality)[1]]  # time or start: always on disk, 8 bytes a row
    size = Path(file.filename).stat().st_size
    right = (
        dataset.dtype.str.startswith(DTYPES[own])
        and dataset.ndim == (2 if own in ("embedding", "box") else 1)
        and dataset.shape[0] == clock.shape[0] <= size // 8
        and math.prod(dataset.shape[1:]) <= MAX_WIDTH
        and dataset.chunks is not None
        and dataset.fletcher32
        and not dataset.is_virtual
    )
    if not right:
        raise _damaged(file, "it is not laid out as a shard's", name)


def _read(dataset: h5py.Dataset) -> np.ndarray:
    try:
        _check_chunks(dataset)
        return dataset[()]
    except AffuseError:
        raise
    except Exception as error:  # a wrong checksum is an OSError
        raise _damaged(dataset.file, f"it cannot be read ({_first_line(error)})", dataset.name[1:]) from error


def _check_chunks(dataset: h5py.Dataset) -> None:
    """HDF5 reads a chunk missing from its index as zeros, without a word: see that each is there, once."""
    expected = {
        corner
        for corner in np.ndindex(
            *(math.ceil(n / c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        )
    }
    corners, places = set(), set()

    def note(chunk) -> None:
        corners.add(tuple(o / c for o, c in zip(chunk.chunk_offset, dataset.chunks, strict=True)))
        places.add(chunk.byte_offset)

    dataset.id.chunk_iter(note)
    if not corners and dataset.size:
        _verify_dataset(
            dataset.file, dataset.name[1:]
        )  # never written: right if all zeros is what it should be
    elif corners != expected or len(places) != len(expected):
        raise _damaged(dataset.file, "chunks are missing from its index", dataset.name[1:])


def _verify_dataset(file: h5py.File, name: str) -> None:
    """Read a dataset in blocks and compare it with its sha256."""
    try:
        _check_layout(file, name)
        dataset = file[name]
        step = max(1, BLOCK // max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:])))
        blocks = (dataset[start : start + step] for start in range(0, len(dataset), step))
        right = _sha256(dataset.dtype, dataset.shape, blocks) == json.loads(dataset.attrs["sha256"])
    except AffuseError:
        raise
    except Exception as error:  # a wrong checksum is an OSError
        raise _damaged(file, f"it cannot be read ({_first_line(error)})", name) from error
    if not right:
        raise _damaged(file, "it does not hold what was written", name)
