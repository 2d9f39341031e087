"""One video's features in one HDF5 file, proven from the first byte to the last.

    (seal)       three lines of text that prove the file's structure, see features/seal.py
    /            format, id, provenance, source_name, source_size, source_sha256, fps, duration, frames,
                 people; views; local; features_digest, digest
    /visual      status, reason;  embedding (T, D), time (T,), valid (T,), box (T, 4), confidence (T,);
                 views/<name> (T, D) for each name in the attribute `views` of /
    /audio       status, reason;  embedding (T, D), time (T,)
    /text        status, reason;  embedding (W, D), start (W,), end (W,), word (W,), confidence (W,)

Every dataset is in chunks under fletcher32, which HDF5 checks at each read, and carries the sha256 of its
contents. `features_digest` covers those and all attributes; `digest` covers it and `local`, the facts in
which two equal runs differ (seconds per stage, the source's mtime). Text attributes are JSON: HDF5's own text
holds neither NUL nor a lone surrogate, and file names may.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from affuse.errors import AffuseError, RecordError, first_line
from affuse.features.entry import Entry, Part
from affuse.features.layout import (
    RECORDS,
    VIEWS,
    array_digest,
    arrays_of,
    as_bytes,
    chunk_count,
    chunk_shape,
    decode,
    kind,
    names,
    paths,
    well_laid,
)
from affuse.features.parts import MODALITIES, Status, checked_modalities
from affuse.features.place import Place, Slice, file_of, opened
from affuse.features.record import FORMAT_VERSION, Provenance, Source, VideoFeatures, canonical, check_types
from affuse.features.rows import pieces_of, read_rows
from affuse.features.seal import DamagedError, Problem, check_seal, noting, room, write_seal
from affuse.files import Sink, publish

OTHER_ATTRIBUTES = "its attributes are not those that were written"
BLOCK = 2**23  # bytes of a dataset read at once where only its digest is wanted
DIGESTS = ("local", "features_digest", "digest")  # not part of what the features digest covers


@dataclass(frozen=True)
class Header(Entry):
    """All that a shard holds but its arrays."""

    seconds: dict[str, float]
    provenance: Provenance


def write_shard(path: Path, video: VideoFeatures, provenance: Provenance) -> None:
    """Make or replace the shard at `path`, whole or not at all.

    Raises AffuseError where the file cannot be written (a full disk), RecordError where the record breaks its
    contract.
    """
    arrays = arrays_of(video)
    if not math.isfinite(video.fps + video.duration):
        raise RecordError(f"Video {video.id!r} cannot be kept: {video.fps} frames/s, {video.duration} s long.")
    chunked = {name: chunk_count(array) for name, array in arrays.items()}
    start = room(Entry.of(video, provenance, sha256().hexdigest()), chunked)

    def fill(sink: Sink) -> None:
        # The default libver: files written with "latest" never open again after a kill.
        with h5py.File(sink, "w", userblock_size=start) as file:
            entry = Entry.of(video, provenance, _fill(file, video, provenance, arrays))
            file.flush()
            chunks: list[tuple[int, int]] = []
            for name in arrays:
                file[name].id.chunk_iter(lambda c: chunks.append((c.byte_offset, c.byte_offset + c.size)))
            pieces = pieces_of(file, arrays)
        write_seal(sink, entry, start, chunks, pieces)

    publish(path, fill, _verify_or_raise)


def _fill(file: h5py.File, video: VideoFeatures, provenance: Provenance, arrays: dict[str, np.ndarray]) -> str:
    """Put everything into the file; its features digest."""
    facts = {
        "format": FORMAT_VERSION,
        "id": video.id,
        "provenance": provenance.as_dict(),
        "source_name": video.source.name,
        "source_size": int(video.source.size),
        "source_sha256": video.source.sha256,
        "fps": float(video.fps),
        "duration": float(video.duration),
        "frames": int(video.frames),
        "people": int(video.people),
        "views": list(video.visual.views),
    }
    _put(file, **facts)
    for modality in MODALITIES:
        part = getattr(video, modality)
        _put(file.create_group(modality), status=part.status.value, reason=part.reason)
    for path, array in arrays.items():
        dataset = file.create_dataset(
            path,
            array.shape,
            array.dtype,
            chunks=chunk_shape(array),
            maxshape=(None, *(n or None for n in array.shape[1:])),
            fletcher32=True,
        )
        # A video without a face is all zeros, which is what chunks that were never written read as.
        if kind(path) != "embedding" or as_bytes(array).any():
            dataset[...] = array
        _put(dataset, sha256=array_digest(array.dtype, array.shape, [array]))
    local = {"mtime_ns": int(video.source.mtime_ns), "seconds": video.seconds}
    features_digest = _digest(_describe(file))
    _put(file, local=local, features_digest=features_digest, digest=_digest([features_digest, local]))
    return features_digest


def _put(node: h5py.HLObject, **attributes: object) -> None:
    for name, value in attributes.items():
        node.attrs[name] = value if isinstance(value, (int, float)) else canonical(value)


def _digest(value: object) -> str:
    return sha256(canonical(value).encode()).hexdigest()


def read_shard(
    place: Place, modalities: Iterable[str] = MODALITIES, views: bool = False
) -> tuple[VideoFeatures, Provenance]:
    """The video and how it was made. Modalities not asked for come with no rows but their real status, and so do the
    further views of its faces, by name, unless `views`.

    Raises UsageError for a newer format, DamagedError where what is read is not what was written.
    """
    wanted = checked_modalities(modalities)
    with _open(place) as shard:
        header = _header(shard)
        parts = {}
        for modality, record in RECORDS.items():
            arrays: dict = {n: _read(shard, f"{modality}/{n}", modality in wanted) for n in names(modality)}
            if modality == "visual":
                whole = views and modality in wanted
                arrays["views"] = {view: _read(shard, f"{VIEWS}/{view}", whole) for view in header.views}
            part = getattr(header, modality)
            parts[modality] = record(**arrays, status=part.status, reason=part.reason)
    kept = {name: getattr(header, name) for name in ("id", "source", "fps", "duration", "frames", "people", "seconds")}
    return VideoFeatures(**kept, **parts), header.provenance


def _read(shard: _Shard, path: str, whole: bool) -> np.ndarray:
    """A dataset, or no rows of it."""
    with _blaming(shard, path) as dataset:
        array = dataset[()] if whole else dataset[:0]
        return decode(array) if kind(path) == "word" else array


def read_header(place: Place) -> Header:
    """All but the arrays. Raises like `read_shard`."""
    with _open(place) as shard:
        return _header(shard)


def version_of(place: Place) -> tuple[int, ...]:
    """When the shard was written, in ns, and what else tells it from others. Raises DamagedError where it is gone."""
    try:
        stat = file_of(place).stat()
    except OSError as error:
        raise DamagedError(file_of(place), f"it cannot be read ({error.strerror})") from None
    return stat.st_mtime_ns, stat.st_ino, place.first if isinstance(place, Slice) else 0


def describe_shard(place: Place) -> dict[str, dict]:
    """Everything that equal shards share, arrays by their sha256: {path: {attribute: value}}."""
    with _open(place) as shard:
        return _describe(shard.file)


def verify_shard(place: Place) -> list[Problem]:
    """Read everything and compare it with its digests: what is wrong, nothing if all is well.

    Raises UsageError for a newer format.
    """
    problems: list[Problem] = []
    with noting(problems), _open(place) as shard:
        header = _header(shard)
        local, features_digest, digest = (json.loads(shard.file.attrs[name]) for name in DIGESTS)
        if _digest(_describe(shard.file)) != features_digest or _digest([features_digest, local]) != digest:
            problems.append(_damage(shard, "", OTHER_ATTRIBUTES).problem)
        for name in paths(header.views):
            with noting(problems):
                _verify_dataset(shard, name)
    return problems


def _verify_or_raise(path: Path) -> None:
    for problem in verify_shard(path):
        raise DamagedError(path, problem.reason, problem.video, problem.dataset)


def _verify_dataset(shard: _Shard, name: str) -> None:
    """Read a dataset in blocks, through HDF5 and by the seal, and compare it with its sha256."""
    with _blaming(shard, name) as dataset:
        step = max(1, BLOCK // max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:])))
        blocks = (_block(shard, dataset, name, start, step) for start in range(0, len(dataset), step))
        if array_digest(dataset.dtype, dataset.shape, blocks) != json.loads(dataset.attrs["sha256"]):
            raise _damage(shard, name, "it does not hold what was written")


def _block(shard: _Shard, dataset: h5py.Dataset, name: str, start: int, step: int) -> np.ndarray:
    """Some rows of a dataset, which the seal must say are where they are."""
    block = dataset[start : start + step]
    sealed = np.empty_like(block)
    read_rows(shard.place, [(name, np.arange(start, start + len(block)), sealed)])
    if sealed.tobytes() != block.tobytes():
        raise _damage(shard, name, "it is not what its seal says")
    return block


class _Shard(NamedTuple):
    """An open one."""

    place: Place
    entry: Entry
    file: h5py.File


@contextmanager
def _open(place: Place) -> Iterator[_Shard]:
    entry = check_seal(place)
    try:
        with ExitStack() as stack:
            if isinstance(place, Slice):
                file = stack.enter_context(h5py.File(stack.enter_context(opened(place)), "r"))
            else:  # published shards never change, so there is nothing to lock, which some network file systems cannot
                file = stack.enter_context(h5py.File(place, "r", locking=False))
            video_id, made = (json.loads(file.attrs[name]) for name in ("id", "provenance"))
            if (entry.id, entry.settings_hash) != (video_id, made["settings_hash"]):
                raise DamagedError(file_of(place), OTHER_ATTRIBUTES, entry.id)
            yield _Shard(place, entry, file)
    except (AffuseError, MemoryError):
        raise
    except Exception as error:  # a sealed file that is none of ours makes h5py raise errors of every kind
        raise DamagedError(file_of(place), f"it cannot be read ({first_line(error)})", entry.id) from error


@contextmanager
def _blaming(shard: _Shard, name: str) -> Iterator[h5py.Dataset]:
    """The dataset, once its layout is right; whatever goes wrong with it is raised as its damage."""
    try:
        dataset = shard.file[name]
        if not well_laid(dataset, name):
            raise _damage(shard, name, f"{dataset.shape} {dataset.dtype} is not the layout of a shard")
        yield dataset
    except (DamagedError, MemoryError):
        raise
    except Exception as error:  # a wrong checksum is an OSError
        raise _damage(shard, name, f"it cannot be read ({first_line(error)})") from error


def _header(shard: _Shard) -> Header:
    _, entry, file = shard
    value = {k: json.loads(v) if isinstance(v, str) else v.item() for k, v in file.attrs.items()}
    parts: dict = {}
    for modality in MODALITIES:
        said = {k: json.loads(v) for k, v in file[modality].attrs.items()}
        parts[modality] = Part(Status(said["status"]), said["reason"], *file[modality]["embedding"].shape)
    name, size, digest = (value[f"source_{fact}"] for fact in ("name", "size", "sha256"))
    header = Header(
        **{fact: value[fact] for fact in ("id", "fps", "duration", "frames", "people", "features_digest")},
        source=Source(name, size, digest, value["local"]["mtime_ns"]),
        settings_hash=entry.settings_hash,
        views=tuple(value["views"]) if isinstance(value["views"], list) else value["views"],
        faces=entry.faces,
        seconds=value["local"]["seconds"],
        provenance=Provenance.from_dict(value["provenance"]),
        **parts,
    )
    check_types(header, Header)
    if any(getattr(header, own.name) != getattr(entry, own.name) for own in fields(Entry)):
        raise _damage(shard, "", OTHER_ATTRIBUTES)
    return header


def _describe(file: h5py.File) -> dict[str, dict]:
    paths = ["/"]
    file.visit(paths.append)
    described = {}
    for path in paths:
        node = file[path]
        own = {k: v.item() if isinstance(v, np.generic) else v for k, v in node.attrs.items() if k not in DIGESTS}
        if isinstance(node, h5py.Dataset):
            own |= {"dtype": node.dtype.str, "shape": list(node.shape)}
        described[path] = own
    return described


def _damage(shard: _Shard, dataset: str, reason: str) -> DamagedError:
    return DamagedError(file_of(shard.place), reason, shard.entry.id, dataset)
