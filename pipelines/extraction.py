"""A folder of videos into a feature store: settings, weights and videos found first, then the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from extract.extractor import Extractor, locate_backbones
from extract.inputs import Job, find_jobs
from extract.schedule import Summary, run
from extract.settings import PROFILES, ExtractSettings
from features.config import nearest, parse_assignments, read_yaml, resolve
from features.device import pick_device
from features.errors import UsageError
from features.record import MODALITIES, Provenance
from features.store import FeatureStore

log = logging.getLogger("affuse")

Progress = Callable[[int, int, str | None], None]  # videos done, videos to do, why this one failed


def extract_settings(
    profile: str,
    config: Path | None = None,
    assignments: Iterable[str] = (),
    given_faces: bool = False,
    given_transcripts: bool = False,
    views: str | None = None,
) -> ExtractSettings:
    """Profile ← settings file ← `key=value` assignments. Raises UsageError naming what is wrong."""
    if profile not in PROFILES:
        raise UsageError(f"Unknown profile {profile!r}{nearest(profile, PROFILES)}")
    given = {"faces": "given"} if given_faces else {}
    given |= {"transcripts": "given"} if given_transcripts else {}
    given |= {"views": views} if views is not None else {}
    file = read_yaml(config) if config else {}
    settings = resolve(
        ExtractSettings, {"backbones": PROFILES[profile]}, file, parse_assignments(list(assignments)), given
    )
    for key, option in (("faces", "--faces-dir"), ("transcripts", "--transcripts")):
        if getattr(settings, key) == "given" and key not in given:
            raise UsageError(f"Setting {key} is 'given', but no folder was: name it with {option}.")
    return settings


def extract_folder(
    video_dir: Path,
    out: Path,
    settings: ExtractSettings,
    *,
    weights_dir: Path | None = None,
    allow_untrained: bool = False,
    faces_dir: Path | None = None,
    transcripts: Path | None = None,
    device: str = "auto",
    retry_failed: bool = False,
    announce: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda done, todo, failure: None,
) -> tuple[Summary, Provenance]:
    """Extract every video below `video_dir` that the store at `out` does not hold already.

    announce hears what is about to happen, progress of every video. Raises UsageError and AffuseError for what
    stops the whole run; a video that fails is in the summary.
    """
    jobs = find_jobs(video_dir, faces_dir, transcripts)
    summary, provenance = extract_jobs(
        jobs, out, settings, weights_dir, allow_untrained, device, retry_failed, announce, progress
    )
    if provenance.untrained:
        log.warning(
            "untrained, seeded backbones: %s; the store says so, and so will every command that reads it",
            ", ".join(provenance.untrained),
        )
    return summary, provenance


def extract_jobs(
    jobs: list[Job],
    out: Path,
    settings: ExtractSettings,
    weights_dir: Path | None,
    allow_untrained: bool,
    device: str,
    retry_failed: bool,
    announce: Callable[[str], None],
    progress: Progress,
    accept: Callable[[Provenance], None] = lambda provenance: None,
) -> tuple[Summary, Provenance]:
    """As `extract_folder`, of videos already found. `accept` may raise, before anything is extracted, where the
    features would not be of the kind wanted."""
    target = pick_device(device)
    torch.set_num_threads(os.cpu_count() or 1)
    store = FeatureStore(out, create=True)
    extractor = Extractor(settings, locate_backbones(settings, weights_dir, allow_untrained), target)
    accept(extractor.provenance)
    count = {"todo": 0, "done": 0}

    def start(reasons: dict[str, str]) -> None:
        count["todo"] = len(reasons)
        tally: dict[str, int] = {}
        for reason in reasons.values():
            tally[reason] = tally.get(reason, 0) + 1
        why = "; ".join(f"{n} {reason}" for reason, n in tally.items())
        announce(
            f"{len(jobs)} videos, {len(reasons)} to extract" + (f" ({why})." if why else ": nothing to do.")
        )

    def finished(job: Job, failure: str | None) -> None:
        count["done"] += 1
        progress(count["done"], count["todo"], f"{job.id}: {failure}" if failure else None)

    return run(jobs, store, extractor, retry_failed, start, finished), extractor.provenance


def describe(summary: Summary) -> str:
    """The run in a few lines: what was made, statuses by modality, time by stage."""
    lines = [
        f"{len(summary.made)} extracted, {len(summary.kept)} already there, {len(summary.failed)} failed, "
        f"in {summary.seconds:.1f} s."
    ]
    if summary.made:
        speed = summary.video_seconds / max(summary.seconds, 1e-9)
        lines.append(
            f"{summary.frames} frames, {summary.video_seconds:.1f} s of video: {summary.frames / summary.seconds:.1f} "
            f"frames per second, {speed:.2f} × real time."
        )
        for modality in MODALITIES:
            counts = ", ".join(f"{status} {n}" for status, n in summary.statuses[modality].items())
            lines.append(f"  {modality:<7} {counts}")
        stages = ", ".join(f"{stage} {spent:.1f} s" for stage, spent in summary.stages.items())
        lines.append(f"  stages  {stages}")
    return "\n".join(lines)
