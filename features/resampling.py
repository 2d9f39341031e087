"""A video's features at another frame rate: as a model reads them, as an import keeps them, as a store of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from affuse.console import Progress
from affuse.errors import AffuseError, UsageError, counted
from affuse.features.parts import AudioFeatures, VisualFeatures
from affuse.features.record import Provenance, VideoFeatures, how_they_differ, settings_hash
from affuse.features.store import FeatureStore
from affuse.features.timeline import Spans, moments, on_clock

FASTEST = 1000.0  # frames per second


def checked_rate(fps: float, option: str = "--fps") -> float:
    """A frame rate. Raises UsageError for what is none."""
    if not 0 < fps <= FASTEST:
        raise UsageError(f"{option} {fps:g} is no frame rate. Give frames per second, up to {FASTEST:g}.")
    return float(fps)


def resampled(video: VideoFeatures, time: np.ndarray, fps: float) -> VideoFeatures:
    """The video at `fps` frames a second, from its first frame on; itself where its frames, at `time` (T,), are on
    that clock already (`on_clock`).

    A row of pictures or sound is the mean of the valid rows in the step around its moment; where no row lies in it,
    the nearest one, if `align` would take it. Words stay as they are. Sound has rows only where there is some.
    """
    return video if on_clock(time, fps) else laid(video, moments(time, fps), fps)


def laid(video: VideoFeatures, clock: np.ndarray, fps: float) -> VideoFeatures:
    """The same on an even clock (T,) of this rate, whatever its own is."""
    return replace(
        video,
        fps=fps if video.frames else 0.0,
        frames=len(clock) if video.frames else 0,
        visual=_visual(video.visual, clock, fps) if len(video.visual.time) else video.visual,
        audio=_audio(video.audio, clock, fps) if len(video.audio.time) else video.audio,
    )


def _visual(part: VisualFeatures, clock: np.ndarray, fps: float) -> VisualFeatures:
    spans = Spans(part.time, part.valid, clock, 1 / fps)
    return replace(
        part,
        embedding=spans(part.embedding),
        time=clock,
        valid=spans.there,
        box=np.where(spans.there[:, None], spans(part.box), np.float32(np.nan)),
        confidence=spans(part.confidence),
        views={view: spans(rows) if len(rows) else rows for view, rows in part.views.items()},  # as they were read
    )


def _audio(part: AudioFeatures, clock: np.ndarray, fps: float) -> AudioFeatures:
    spans = Spans(part.time, np.ones(len(part.time), bool), clock, 1 / fps)
    return replace(part, embedding=spans(part.embedding)[spans.there], time=clock[spans.there])


def resampled_provenance(provenance: Provenance, fps: float) -> Provenance:
    """Settings that say so, and a hash of their own."""
    settings = {**provenance.settings, "resample": fps}
    return replace(provenance, settings=settings, settings_hash=settings_hash(settings, provenance.backbones))


def resample_store(
    store: FeatureStore, out: Path | str, fps: float, progress: Progress = lambda line, failure, last: None
) -> dict:
    """Bring every video of a store at `fps` frames a second into the store at `out`; what is there already and
    unchanged is kept. One video is in memory at a time.

    A model that is trained on `out` sees what one trained on `store` with the setting fps sees, in less room. Views,
    boxes and confidences go along; a video that is at that rate within 1 % is copied as it is.

    Gives {"written": [id], "kept": [id], "failed": {id: why}}. Raises UsageError where `fps` is no rate, the store has
    been resampled before, or `out` holds features of another kind.

    >>> resample_store(FeatureStore("store"), "slow", 5)
    {'written': ['clip01', 'clip02'], 'kept': [], 'failed': {}}
    >>> FeatureStore("slow")["clip01"].visual.time
    array([0. , 0.2, 0.4, 0.6, 0.8, 1. , 1.2, 1.4])
    """
    fps, made = checked_rate(fps), store.provenance
    if "resample" in made.settings:
        raise UsageError(
            f"{store.path} is resampled already, to {made.settings['resample']:g} frames a second. Resample the store "
            "it was made from."
        )
    provenance, target = resampled_provenance(made, fps), FeatureStore(out, create=True)
    if len(target) and (differences := how_they_differ(provenance, target.provenance)):
        raise UsageError(f"{out} holds features of another kind: {'; '.join(differences)}. Choose another --out.")
    result: dict = {"written": [], "kept": [], "failed": {}}
    for done, video_id in enumerate(store.ids, start=1):
        why = None
        try:
            result[_bring(store, target, video_id, provenance, fps)].append(video_id)
        except AffuseError as error:
            why = result["failed"][video_id] = str(error)
        progress(f"{done} of {counted(len(store), 'video')}", why and f"{video_id}: {why}", done == len(store))
    return result


def _bring(store: FeatureStore, target: FeatureStore, video_id: str, provenance: Provenance, fps: float) -> str:
    """ "written" or "kept". Equal sources and settings give other features only where one failed by mischance."""
    header = store.header(video_id)
    source = header.source
    known = provenance.settings_hash, source.size, source.mtime_ns, lambda: source.sha256
    _, there = target.examine(video_id, *known)
    if there and there.failure == header.failure:
        return "kept"
    target.write(resampled(store.read(video_id, views=True), store.frame_times(video_id), fps), provenance)
    return "written"
