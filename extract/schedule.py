"""What is left to extract, and extracting it: every video on its own, so that one cannot take others along."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from extract.extractor import Extractor
from extract.inputs import Job
from features.errors import AffuseError, RecordError
from features.record import MODALITIES, VideoFeatures
from features.store import FeatureStore

log = logging.getLogger("affuse")


@dataclass
class Summary:
    """What a run did. `made`, `kept` and `failed` are ids (failed: id → reason); times in seconds."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, dict[str, int]] = field(default_factory=lambda: {m: {} for m in MODALITIES})
    stages: dict[str, float] = field(default_factory=dict)
    frames: int = 0
    video_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, video: VideoFeatures) -> None:
        self.made.append(video.id)
        self.frames += video.frames
        self.video_seconds += video.duration
        for modality, counts in self.statuses.items():
            status = getattr(video, modality).status.value
            counts[status] = counts.get(status, 0) + 1
        for stage, spent in video.seconds.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + spent


def remaining(jobs: list[Job], store: FeatureStore, settings_hash: str, retry_failed: bool) -> dict[str, str]:
    """The ids still to extract, each with the reason: new, or why what the store has of it does not serve."""
    reasons = {}
    for job in jobs:
        try:
            reason = store.why_remake(job.id, settings_hash, job.size, job.mtime_ns, job.digest)
        except OSError as error:  # the video is not readable: extraction will say so
            reason = f"unreadable: {error.strerror}"
        if reason is None and retry_failed and _failure(store, job.id):
            reason = "failed before"
        if reason is not None:
            reasons[job.id] = reason
    return reasons


def _failure(store: FeatureStore, video_id: str) -> str | None:
    """Why the store's record of a video holds nothing, or None where it holds something."""
    return store.read(video_id, modalities=()).failure


def run(
    jobs: list[Job],
    store: FeatureStore,
    extractor: Extractor,
    retry_failed: bool = False,
    on_start: Callable[[dict[str, str]], None] = lambda reasons: None,
    on_done: Callable[[Job, str | None], None] = lambda job, failure: None,
) -> Summary:
    """Extract what is left of `jobs` into the store, in this process, one video after another.

    on_start hears what is left and why; on_done hears of each video, with the reason if it failed.
    A video that cannot be decoded is recorded as such and not tried again unless `retry_failed`.
    Raises AffuseError where weights do not fit or the store cannot be written; everything written before stays.
    """
    begin = time.perf_counter()
    summary = Summary()
    store.sweep()
    reasons = remaining(jobs, store, extractor.provenance.settings_hash, retry_failed)
    on_start(reasons)
    if reasons:
        extractor.load()
    for job in jobs:
        if job.id not in reasons:
            summary.kept.append(job.id)
            if failure := _failure(store, job.id):
                summary.failed[job.id] = f"{failure} (found by an earlier run; --retry-failed tries again)"
            continue
        video, failure = attempt(extractor, job)
        if video is not None:
            try:
                store.write(video, extractor.provenance)
            except RecordError as error:
                failure = str(error)
        if failure is None:
            summary.add(video)
        else:
            summary.failed[job.id] = failure
        on_done(job, failure)
    summary.seconds = time.perf_counter() - begin
    return summary


def attempt(extractor: Extractor, job: Job) -> tuple[VideoFeatures | None, str | None]:
    """Extract one video: the record to keep, if any, and why it failed, if it did."""
    try:
        video = extractor(job)
    except AffuseError as error:
        return None, str(error)
    except OSError as error:
        return (
            None,
            f"{job.path} cannot be read: {error.strerror or error}. Check its permissions and its disk.",
        )
    except Exception as error:
        log.exception("extraction of %s failed", job.id)
        return (
            None,
            f"{job.path} made the extraction fail ({type(error).__name__}: {error}). Please report this.",
        )
    return video, video.failure
