"""Utterances that are files, one after the other as one recording.

The loss is 1 − CCC of a window, which has no slope where the window's label is one value, as within a single utterance.
In a row, a window sees several.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from affuse.features.assembly import spacing
from affuse.features.parts import Status
from affuse.features.record import Source, VideoFeatures
from affuse.features.store import FeatureStore
from affuse.fuse.data.corpus import match
from affuse.pipelines.recipes.dataset import Recording
from affuse.pipelines.recipes.ratings import Ratings

JOINED = ("embedding", "valid", "box", "confidence", "word")  # of a modality, beside its times


def join_all(
    store: FeatureStore, recordings: Sequence[Recording], ratings: dict[str, Ratings], out: Path, allow_missing: bool
) -> tuple[FeatureStore, dict[str, Ratings]]:
    """A store at `out` with a record per recording, and its ratings with a start and an end for each utterance; what is
    joined already and unchanged is kept.

    Utterances that the store lacks are left out of both; AffuseError names them unless they may be missing.
    """
    joined = FeatureStore(out, create=True)
    timed = {}
    here = set(match(store, (part for recording in recordings for part in recording.media), allow_missing))
    for recording in recordings:
        there = [row for row, part in enumerate(recording.media) if part in here]
        parts = [recording.media[row] for row in there]
        if parts and recording.id in ratings:
            rows = _rows(ratings[recording.id], there)
            edges = np.cumsum([0.0, *(_length(store.frame_times(part)) for part in parts)])
            timed[recording.id] = replace(rows, time=edges[:-1], end=edges[1:])
            source = _source(store, recording.id, parts)
            if recording.id not in joined or joined.header(recording.id).source != source:
                records = [store.read(part, views=True) for part in parts]
                joined.write(replace(join(recording.id, records, edges[:-1]), source=source), store.provenance)
    return joined, timed


def _rows(ratings: Ratings, rows: list[int]) -> Ratings:
    gold = None if ratings.gold is None else ratings.gold[rows]
    raters = {name: values[rows] for name, values in ratings.raters.items()}
    return replace(ratings, lines=[ratings.lines[row] for row in rows], gold=gold, raters=raters)


def _length(time: np.ndarray) -> float:
    """Seconds that rows of a clock take, so that the next ones go on in its beat."""
    return len(time) * spacing(time)


def _source(store: FeatureStore, name: str, parts: list[str]) -> Source:
    headers = [store.header(part) for part in parts]
    digests = "".join(header.features_digest for header in headers)
    return Source(name, sum(header.source.size for header in headers), hashlib.sha256(digests.encode()).hexdigest())


def join(name: str, parts: Sequence[VideoFeatures], starts: np.ndarray) -> VideoFeatures:
    """One record of several, each begun at its start (parts,), seconds. A modality is there if any part has it."""
    first, last = parts[0], parts[-1]
    clock = last.visual.time if len(last.visual.time) else last.audio.time
    return replace(
        first,
        id=name,
        duration=float(starts[-1]) + _length(clock),
        frames=sum(part.frames for part in parts),
        **{m: _joined([getattr(part, m) for part in parts], starts) for m in ("visual", "audio", "text")},
    )


def _joined(parts: list, starts: np.ndarray):
    """A modality of all parts: its rows one after the other, their times moved."""
    status = next((part for part in parts if part.status == Status.OK), parts[0])
    rows = {key: np.concatenate([getattr(p, key) for p in parts]) for key in JOINED if hasattr(status, key)}
    for key in ("time", "start", "end"):
        if hasattr(status, key):
            rows[key] = np.concatenate([getattr(part, key) + at for part, at in zip(parts, starts, strict=True)])
    if hasattr(status, "views"):
        rows["views"] = {v: np.concatenate([p.views.get(v, p.embedding) for p in parts]) for v in status.views}
    return replace(status, **rows)
