"""Extraction as one call of Python: videos in, their open feature store out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from affuse.extract.extraction import Compute, extract_folder, extract_settings
from affuse.features.store import FeatureStore

from affuse.console import Announce, Progress
from affuse.errors import UsageError

Place = str | PathLike[str]
log = logging.getLogger("affuse")


def extract_videos(
    videos: Place | Iterable[Place],
    out: Place,
    *,
    profile: str = "paper",
    config: Place | None = None,
    weights_dir: Place | None = None,
    allow_untrained: bool = False,
    faces_dir: Place | None = None,
    transcripts: Place | None = None,
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
    """Extract `videos`, a folder, a file or several files, into the store at `out`; what it has already is kept.

    settings: those of `ExtractSettings`, over the profile and the file `config`: `detection={"every": 1}`,
    `modalities=["visual", "audio"]`. All else is as the options of `affuse extract`, see `Compute` for where it runs.
    A video that fails is a warning of the logger "affuse"; one that could not be decoded is in the store's `failed`.
    Raises UsageError and AffuseError for what stops the whole run.
    """
    several = isinstance(videos, Iterable) and not isinstance(videos, str)
    source = [_path("videos", video) for video in videos] if several else _path("videos", videos)
    folders = {"weights_dir": weights_dir, "faces_dir": faces_dir, "transcripts": transcripts}
    paths = {name: _path(name, folder) if folder is not None else None for name, folder in folders.items()}
    file = _path("config", config) if config is not None else None
    resolved = extract_settings(
        profile,
        file,
        given_faces=faces_dir is not None,
        given_transcripts=transcripts is not None,
        views=views,
        **settings,
    )
    summary, _ = extract_folder(
        source,
        _path("out", out),
        resolved,
        **paths,
        allow_untrained=allow_untrained,
        compute=Compute(device, workers, scheduler, threads),
        retry_failed=retry_failed,
        announce=announce,
        progress=progress,
    )
    for video_id, why in summary.failed.items():
        log.warning("%s failed: %s", video_id, why)
    return FeatureStore(out, create=True)


def _path(name: str, given: Place) -> Path:
    if not isinstance(given, (str, PathLike)):
        raise UsageError(f"{name} is a path, not {given!r}.")
    return Path(given)
