"""Extraction as one call of Python: videos in, their open feature store out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from affuse.console import Announce, Progress
from affuse.extract.extraction import Compute, extract_jobs, extract_settings
from affuse.extract.videos import AnyPath, find_jobs
from affuse.features.store import FeatureStore

log = logging.getLogger("affuse")


def extract_videos(
    videos: AnyPath | Iterable[AnyPath],
    out: AnyPath,
    *,
    profile: str = "paper",
    config: AnyPath | None = None,
    weights_dir: AnyPath | None = None,
    allow_untrained: bool = False,
    faces_dir: AnyPath | None = None,
    transcripts: AnyPath | None = None,
    views: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    retry_failed: bool = False,
    announce: Announce = lambda text: None,
    progress: Progress = lambda line, failure, last: None,
    **settings: Any,
) -> FeatureStore:
    """Extract `videos`, a folder, a file or several of these, into the store at `out`; what it has already is kept.

    settings: those of `ExtractSettings`, over the profile and the file `config`: `detection={"every": 1}`,
    `modalities=["visual", "audio"]`. All else is as the options of `affuse extract`, see `Compute` for where it runs.
    A video that fails is a warning of the logger "affuse"; one that could not be decoded is in the store's `failed`.
    Raises UsageError and AffuseError for what stops the whole run.
    """
    given = {"given_faces": faces_dir is not None, "given_transcripts": transcripts is not None}
    file = None if config is None else Path(config)
    resolved = extract_settings(profile, file, **given, views=views, **settings)
    summary, _ = extract_jobs(
        find_jobs(videos, faces_dir, transcripts),
        out,
        resolved,
        weights_dir=None if weights_dir is None else Path(weights_dir),
        allow_untrained=allow_untrained,
        compute=Compute(device, workers, scheduler, threads),
        retry_failed=retry_failed,
        announce=announce,
        progress=progress,
    )
    for video_id, why in summary.failed.items():
        log.warning("%s failed: %s", video_id, why)
    return FeatureStore(out, create=True)
