"""Two stores that should hold the same."""

from __future__ import annotations

from affuse.features.shard import describe_shard
from affuse.features.store import FeatureStore


def differences(one: FeatureStore, other: FeatureStore) -> list[str]:
    """How the features of two stores differ, a line per video and dataset or attribute; nothing if equal.

    Every shard is verified on the way. Seconds and mtimes, in which two equal runs differ, do not count.
    """
    lines = []
    for store in (one, other):
        lines += [
            f"{p.video or p.file}: {p.dataset} damaged in {store.path}" for p in store.verify().problems
        ]
    for video_id in sorted({*one.ids, *other.ids}):
        lacking = [store.path for store in (one, other) if video_id not in store]
        if lacking:
            lines.append(f"{video_id}: not in {lacking[0]}")
        else:
            lines += _differing(video_id, *(describe_shard(store.shard(video_id)) for store in (one, other)))
    return lines


def _differing(video_id: str, one: dict[str, dict], other: dict[str, dict]) -> list[str]:
    lines = []
    for path in sorted({*one, *other}):
        mine, theirs = one.get(path, {}), other.get(path, {})
        keys = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
        if "sha256" in keys:
            lines.append(f"{video_id}: {path} differs: shapes {mine.get('shape')} and {theirs.get('shape')}")
        else:
            lines += [f"{video_id}: {path} {key}: {mine.get(key)} and {theirs.get(key)}" for key in keys]
    return lines
