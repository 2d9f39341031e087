"""How much memory an extraction takes, and how little of it comes from the video's length.

A long video is made in a private folder: a talking head in the first minute of every ten, an empty room in the others,
bursts of noise where there is a face and faint hiss elsewhere. A fresh process loads the models, extracts two seconds
of the same, then the whole, and its peak is read after each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.media import LONGEST
from affuse.extract.networks import decided
from affuse.extract.run import Recipe, process
from affuse.extract.settings import ExtractSettings
from affuse.extract.summary import Receipt
from affuse.extract.videos import Job
from affuse.extract.weights.doctor import environment
from affuse.features.store import FeatureStore
from affuse.pipelines.bench.machine import peak
from affuse.pipelines.demo.encode import encode
from affuse.pipelines.demo.face import Look, Motion, render

SIZE = (320, 240)  # pixels: width, height
SAMPLE_RATE = 16_000  # Hz
SHORT = 2.0  # s of the video after which the peak counts as that of the models
SHOWN, PERIOD = 60, 600  # s: a face for the first 60 of every 600
SWING = 10  # s after which the face's motion repeats
BURST, PAUSE = 1.0, 2.0  # s of noise, s of hiss after it
LOUD, FAINT = 0.1, 1e-4  # standard deviation of noise and of hiss, of full scale


def measure_memory(
    settings: ExtractSettings,
    weights_dir: Path | None,
    allow_untrained: bool,
    *,
    hours: float = 2.0,
    fps: int = 10,
    threads: int = 1,
) -> dict:
    """Peak memory of extracting a video of `hours`, in bytes: {short, long, growth, frames, seconds, ...}.

    short is the peak after SHORT seconds of video with all models loaded, long that after the whole, growth what the
    length added; record, what the arrays of the record take of it; seconds, what the long extraction took.

    Raises UsageError for a length that is not read, AffuseError where the peak cannot be read or the video is not
    extracted.
    """
    if not SHORT < hours * 3600 <= LONGEST:
        raise UsageError(
            f"--hours {hours:g} is not between {SHORT:g} seconds and {LONGEST / 3600:g} hours, which is what is read."
        )
    if peak() is None:
        raise AffuseError(
            "Here the system does not say how much memory a process held at most. Measure on Linux or Windows."
        )
    settings = decided(settings, torch.device("cpu"))
    recipe = Recipe(settings, weights_dir.resolve() if weights_dir else None, allow_untrained, "cpu", threads)
    with TemporaryDirectory(prefix="affuse-memory-") as folder:
        videos = [
            film(Path(folder) / f"{name}.mp4", seconds, fps)
            for name, seconds in (("short", SHORT), ("long", hours * 3600))
        ]
        with ProcessPoolExecutor(1, get_context("spawn")) as child:  # a new process: its peak is its own
            found = child.submit(_extract, recipe, videos, Path(folder) / "store").result()
    return {
        "hours": hours,
        "fps": fps,
        "threads": threads,
        **found,
        "growth": found["long"] - found["short"],
        "settings": settings.model_dump(mode="json"),
        "allow_untrained": allow_untrained,
        "machine": environment(),
    }


def _extract(recipe: Recipe, videos: list[Path], out: Path) -> dict:
    """In the fresh process: peaks after the first video and after the second, and of the second its receipt."""
    extractor, store = recipe.extractor(), FeatureStore(out, create=True)
    peaks = []
    for path in videos:
        begin = time.perf_counter()
        receipt = process(Job(path.stem, path.name, path), extractor, store)
        spent = time.perf_counter() - begin
        if receipt.failure is not None:
            raise AffuseError(receipt.failure)
        peaks.append(peak())
    return {
        "short": peaks[0],
        "long": peaks[1],
        "record": _record_bytes(store, receipt),
        "seconds": spent,
        "video": asdict(receipt),
        "untrained": sorted(extractor.provenance.untrained),
    }


def _record_bytes(store: FeatureStore, receipt: Receipt) -> int:
    """What the arrays of a record take in memory."""
    video = store[receipt.id]
    parts = [vars(getattr(video, modality)) for modality in receipt.statuses]
    arrays = [value for part in parts for value in (*part.values(), *part.get("views", {}).values())]
    return sum(value.nbytes for value in arrays if isinstance(value, np.ndarray))


def describe_memory(facts: dict) -> str:
    """What was measured, for people."""
    mib = 2**20
    video = facts["video"]
    untrained = f" ({', '.join(facts['untrained'])} untrained)" if facts["untrained"] else ""
    return "\n".join(
        [
            f"models loaded, {SHORT:g} s of video   {facts['short'] / mib:8.0f} MiB{untrained}",
            f"{facts['hours']:g} h of video              {facts['long'] / mib:8.0f} MiB",
            f"difference                  {facts['growth'] / mib:8.0f} MiB, of which the record itself is "
            f"{facts['record'] / mib:.0f}",
            f"{counted(video['frames'], 'frame')} at {facts['fps']} a second, extracted in {facts['seconds']:.0f} s on "
            f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''}; "
            + ", ".join(f"{modality} {status}" for modality, status in video["statuses"].items()),
            "; ".join(f"{name} {value}" for name, value in facts["machine"].items()),
        ]
    )


def film(path: Path, seconds: float, fps: int) -> Path:
    """Write the video, a second at a time."""
    generator = np.random.default_rng(0)
    faces = _talking(min(seconds, SWING), fps, generator)
    empty = np.full_like(faces[0], 90)

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, round(seconds * fps), fps):
            frames = range(first, min(first + fps, round(seconds * fps)))
            pictures = [faces[i % len(faces)] if i / fps % PERIOD < SHOWN else empty for i in frames]
            yield np.stack(pictures), _noise(first // fps, min(1.0, seconds - first / fps), generator)

    encode(path, parts(), SIZE, fps, SAMPLE_RATE)
    return path


def _talking(seconds: float, fps: int, generator: np.random.Generator) -> np.ndarray:
    """Frames (T, height, width, 3) uint8 of a face that moves as in SWING seconds, over and over."""
    phase = 2 * np.pi * np.arange(round(seconds * fps)) / (SWING * fps)
    motion = Motion(
        expression=np.sin(phase),
        opening=np.sin(5 * phase) ** 2,
        shift_x=4 * np.sin(phase),
        shift_y=2 * np.sin(2 * phase),
        roll=0.05 * np.sin(phase),
        brightness=np.ones_like(phase),
    )
    return render(Look(), motion, SIZE, generator)


def _noise(second: int, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """The sound (n,) of one second of the video, or of what is left of it."""
    burst = second % PERIOD < SHOWN and second % (BURST + PAUSE) < BURST
    return (LOUD if burst else FAINT) * generator.standard_normal(round(seconds * SAMPLE_RATE), np.float32)
