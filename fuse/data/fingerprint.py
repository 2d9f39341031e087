"""The digests that tell what features and labels a run was made from, and how others differ from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from affuse.errors import AffuseError
from affuse.features import FeatureStore
from affuse.files import write_text
from affuse.fuse.data.partitions import AS_IT_IS, Split, find_labels

SHOWN = 5  # changes that a message names

Fingerprint = dict[str, dict[str, dict[str, str]]]


def fingerprint(store: FeatureStore, labels: Path, wanted: Split = AS_IT_IS) -> Fingerprint:
    """{"train" and "validation": {video: {"features", "labels"}}}, the digest of each; no "features" where the store
    lacks the video. Raises as `find_labels` and `FeatureStore.read` do."""
    split, kept = find_labels(labels, wanted), set(store.ids)
    return {
        partition: {
            video: {
                **({"features": store.overview(video)[0].features_digest} if video in kept else {}),
                "labels": _digest(path),
            }
            for video, path in split[partition].items()
        }
        for partition in ("train", "validation")
        if partition in split
    }


def keep(path: Path, data: Fingerprint) -> None:
    write_text(path, json.dumps(data, indent=1) + "\n")


def changes(path: Path, data: Fingerprint) -> str:
    """How the data differ from those kept at `path`, naming videos; empty where they do not."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return f"{path.name}, which tells what was trained on, is gone or damaged"
    old, new = (
        {video: (partition, found) for partition, videos in data.items() for video, found in videos.items()}
        for data in (before, data)
    )
    lines = []
    for video in sorted({*old, *new}):
        if video not in new or video not in old:
            lines.append(f"video {video!r} is {'new' if video in new else 'gone'}")
            continue
        (was, one), (partition, other) = old[video], new[video]
        if was != partition:
            lines.append(f"video {video!r} was in {was} and is in {partition} now")
        parts = [part for part in ("features", "labels") if one.get(part) != other.get(part)]
        if parts:
            lines.append(f"{' and '.join(parts)} of video {video!r} have changed")
    more = [f"{len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "; ".join(lines[:SHOWN] + more)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise AffuseError(f"Label file {path} cannot be read: {error}. Check the file.") from None
