"""A store's features for programs that are not ours: .npz and .parquet per video and modality, and the folder layout
of the ABAW3 and RJCMA code. What `npz` writes, `features import` takes back."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np

from affuse.console import Progress
from affuse.errors import AffuseError, UsageError, counted
from affuse.features.layout import names
from affuse.features.parts import MODALITIES
from affuse.features.record import EDGES
from affuse.features.store import FeatureStore
from affuse.features.timeline import align
from affuse.files import make_folder, publish, write_bytes

Files: TypeAlias = Iterator[tuple[str, Callable[..., object]]]  # name below the folder, and what fills it
ABAW3_NAMES = {"visual": "visual", "audio": "vggish", "text": "bert"}  # the file names that code knows


def export_features(
    store: FeatureStore, out: Path, kind: str, progress: Progress = lambda line, failure, last: None
) -> dict:
    """Write every video of the store below `out`, one video in memory at a time; {"videos": n, "files": n}.

    kind: npz, `<modality>/<video id>.npz` with the record's arrays; parquet, the same as tables; abaw3,
    `<video id>/{visual,vggish,bert}.npy` with one float32 row per frame, zeros where there is nothing, and
    dataset_info.pkl. Raises UsageError for another kind, a folder that is not empty, or a library that is missing.
    """
    if kind not in KINDS:
        raise UsageError(f"Unknown format {kind!r}. Known: {', '.join(KINDS)}.")
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow, which is not installed: pip install 'affuse[parquet]'; or export npz.")
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Choose another folder for --out.")
    files, suffix = 0, "" if kind == "abaw3" else f".{kind}"
    for video_id in store.ids:
        if len(os.fsencode(PurePosixPath(video_id + suffix).name)) > 255:
            raise AffuseError(f"Video {video_id!r} is longer than a file's name may be; it cannot be exported.")
        if video_id.startswith("/") or ".." in PurePosixPath(video_id).parts or "\0" in video_id:
            raise AffuseError(f"Video {video_id!r} has a name that leads out of the folder; it cannot be exported.")
    for done, video_id in enumerate(store.ids, start=1):
        for name, fill in KINDS[kind](store, video_id):
            publish(make_folder((out / name).parent) / Path(name).name, fill)
            files += 1
        progress(f"{done} of {counted(len(store), 'video')}", None, done == len(store))
    if kind == "abaw3":
        write_bytes(out / "dataset_info.pkl", pickle.dumps(_abaw3_info(store)))
    return {"videos": len(store), "files": files}


def _npz(store: FeatureStore, video_id: str) -> Files:
    for m, arrays in _parts(store, video_id).items():
        yield f"{m}/{video_id}.npz", lambda sink, arrays=arrays: np.savez(sink, **arrays)


def _parquet(store: FeatureStore, video_id: str) -> Files:
    import pandas as pd

    for m, arrays in _parts(store, video_id).items():
        embedding = arrays.pop("embedding").astype(np.float32)
        if "box" in arrays:
            arrays |= {f"box_{edge}": values for edge, values in zip(EDGES, arrays.pop("box").T, strict=True)}
        table = pd.DataFrame({**arrays, **{f"{m}_{i}": values for i, values in enumerate(embedding.T)}})
        yield f"{m}/{video_id}.parquet", partial(table.to_parquet, engine="pyarrow")


def _parts(store: FeatureStore, video_id: str) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of every modality that has rows."""
    video = store.read(video_id)
    parts = {m: {name: getattr(getattr(video, m), name) for name in names(m)} for m in MODALITIES}
    return {m: arrays for m, arrays in parts.items() if len(arrays["embedding"])}


def _abaw3(store: FeatureStore, video_id: str) -> Files:
    widths = store.widths
    aligned = align(store.read(video_id), store.frame_times(video_id), list(widths), widths)
    for m, (embedding, _) in aligned.items():
        yield f"{video_id}/{ABAW3_NAMES[m]}.npy", partial(np.save, arr=embedding.astype(np.float32))


def _abaw3_info(store: FeatureStore) -> dict:
    """dataset_info.pkl as that code reads it; "extra" is its partition for videos without labels."""
    return {
        "trial": store.ids,
        "length": [len(store.frame_times(video_id)) for video_id in store.ids],
        "partition": ["extra"] * len(store),
        "data_folder": "",
    }


KINDS = {"npz": _npz, "parquet": _parquet, "abaw3": _abaw3}
