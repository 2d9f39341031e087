"""A video before its embeddings are read, its clock and which of its rows stand for each frame; and how they are then
read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from affuse.features import MODALITIES, AudioFeatures, FeatureStore, TextFeatures, VideoFeatures, VisualFeatures
from affuse.features.entry import Entry
from affuse.features.layout import VIEWS
from affuse.features.resampling import resampled
from affuse.features.timeline import moments, on_clock, rows_at

ARRAYS = ("visual/time", "visual/valid", "audio/time", "text/start", "text/end")


@dataclass(frozen=True)
class Outline:
    """time (T,), seconds: the frames that a model reads. used {modality: (K,)}: the rows that stand for them, rising;
    place {modality: (T,) int32}: which of these stands for each frame, counted from 1; 0: none does.

    fps: the rate, where it is not that of the video's own frames; these are then at `frames`, seconds, present
    {modality: (frames,) bool} there, and `used` are rows of the video at that rate.
    """

    entry: Entry
    time: np.ndarray
    used: dict[str, np.ndarray]
    place: dict[str, np.ndarray]
    fps: float | None = None
    frames: np.ndarray | None = None
    present: dict[str, np.ndarray] | None = None

    def why_not(self, modality: str) -> str:
        """Why the video has none of a modality."""
        part = getattr(self.entry, modality)
        return f"{part.status.value} ({part.reason})" if part.reason else part.status.value


def outline(store: FeatureStore, video_id: str, fps: float | None) -> Outline:
    """The outline of a video, on its own frames or, where they are not at `fps` frames a second, on that clock. Raises
    as `FeatureStore.read` does."""
    entry, (seen, valid, heard, start, end) = store.overview(video_id, *ARRAYS)
    video = _without_embeddings(entry, seen, valid, heard, start, end)
    time, before = seen if len(seen) else heard, {}
    if fps and not on_clock(time, fps):
        before = {"fps": fps, "frames": time, "present": {m: rows_at(video, m, time)[1] for m in MODALITIES}}
        video, time = resampled(video, time, fps), moments(time, fps)
    used, place = {}, {}
    for m in MODALITIES:
        row, there = rows_at(video, m, time)
        used[m], which = np.unique(row[there], return_inverse=True)
        place[m] = np.zeros(len(time), np.int32)
        place[m][there] = which + 1
    return Outline(entry, time, used, place, **before)


def fill(store: FeatureStore, video: Outline, places: Mapping[str, np.ndarray]) -> None:
    """Read the used rows of a video's arrays, such as "visual/embedding" or "visual/views/flip", into these (K, width);
    of a view that it does not have those of the centre. At another rate than its own, all of the video is in memory
    meanwhile. Raises as `FeatureStore.read` does."""
    own = {array: modality_of(array) for array in places if video.fps is None or modality_of(array) == "text"}
    store.read_rows(video.entry.id, [(_kept(array, video), video.used[m], places[array]) for array, m in own.items()])
    if others := {array: modality_of(array) for array in places if array not in own}:
        views = any(array.startswith(VIEWS) for array in others)
        whole = resampled(store.read(video.entry.id, set(others.values()), views), video.frames, video.fps)
        for array, m in others.items():
            part, view = getattr(whole, m), _kept(array, video).removeprefix(f"{VIEWS}/")
            rows = part.views[view] if view in video.entry.views else part.embedding
            np.take(rows, video.used[m], 0, places[array], "clip")


def modality_of(array: str) -> str:
    """Whose an array of a shard is."""
    return array.partition("/")[0]


def _kept(array: str, video: Outline) -> str:
    """The array, or the centre in the place of a view that the video does not have."""
    there = not array.startswith(VIEWS) or array.removeprefix(f"{VIEWS}/") in video.entry.views
    return array if there else "visual/embedding"


def _without_embeddings(entry: Entry, seen, valid, heard, start, end) -> VideoFeatures:
    """The video with embeddings, boxes and words that are 0 wide."""

    def none(rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 0), np.float16)

    zeros = np.zeros(len(seen), np.float32)
    return VideoFeatures(
        entry.id,
        entry.source,
        entry.fps,
        entry.duration,
        entry.frames,
        VisualFeatures(none(seen), seen, valid, none(seen), zeros, entry.visual.status, entry.visual.reason),
        AudioFeatures(none(heard), heard, entry.audio.status, entry.audio.reason),
        TextFeatures(none(start), start, end, none(start), none(start), entry.text.status, entry.text.reason),
    )
