"""How training takes a store as large as memory: one of Aff-Wild2's size is drawn, and processes of their own load a
third of its videos, and all of them, and take steps: how long that takes, and the peak.

    python benchmarks/corpus.py OUT --gib 16 --json benchmarks/corpus-cpu.json

OUT needs twice the room. The network is narrow, so that a step waits for features as much as it ever does.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import psutil
import torch

import affuse
from affuse.errors import UsageError
from affuse.extract.weights.doctor import environment
from affuse.features import (
    AudioFeatures,
    Backbone,
    FeatureStore,
    Provenance,
    Source,
    TextFeatures,
    VideoFeatures,
    VisualFeatures,
)
from affuse.features.record import settings_hash
from affuse.fuse import train_settings
from affuse.fuse.data.pool import Pool
from affuse.fuse.data.windows import Normalisation, Windows
from affuse.fuse.training.run import labelled_corpora
from affuse.pipelines.bench.fuse import own_side
from affuse.pipelines.bench.machine import STATUS, peak

WIDTHS = {"visual": 2048, "audio": 128, "text": 768}
VIDEOS, VALIDATION = 594, 12
FPS, WORDS = 30.0, 2.5  # frames and words per second
GIB = 2**30
FRAME = 2 * (WIDTHS["visual"] + WIDTHS["audio"]) + 2 * WIDTHS["text"] * WORDS / FPS  # bytes, in memory


def draw(out: Path, videos: int, frames: int) -> None:
    """A store of so many videos of so many frames each, and labels of all, and of a third, of them."""
    rng, store = np.random.default_rng(0), FeatureStore(out / "store", create=True)
    pool = {m: rng.standard_normal((3 * frames // 2, width), np.float32).astype(np.float16) for m, width in
            WIDTHS.items()}  # fmt: skip
    backbones = {m: Backbone(f"drawn-{m}", "nowhere", "ab" * 32, True, width) for m, width in WIDTHS.items()}
    made = Provenance({"drawn": frames}, settings_hash({"drawn": frames}, backbones), backbones, {})
    clock, seen = np.arange(frames) / FPS, np.ones(frames, bool)
    start = np.arange(0.1, clock[-1], 1 / WORDS)
    for i in range(videos):
        name, first = f"v{i:03d}", int(rng.integers(frames // 2))
        rows = {m: values[first : first + frames] for m, values in pool.items()}
        boxes, sure = np.zeros((frames, 4), np.float32), np.ones(frames, np.float32)
        words, certain = np.full(len(start), "word"), np.ones(len(start), np.float32)
        video = VideoFeatures(
            name, Source(f"{name}.mp4", 0, f"{i:064d}"), FPS, frames / FPS, frames,
            VisualFeatures(rows["visual"], clock, seen, boxes, sure),
            AudioFeatures(rows["audio"], clock),
            TextFeatures(rows["text"][: len(start)], start, start + 0.3, words, certain),
        )  # fmt: skip
        store.write(video, made)
        ratings = rng.uniform(-1, 1, (1 + frames // 100, 2)).repeat(100, 0)[:frames]
        text = "valence,arousal\n" + "".join(f"{v:.3f},{a:.3f}\n" for v, a in ratings)
        for labels in ("all", *["third"][: i % 3 == 0]):
            file = out / labels / ("validation" if i < VALIDATION else "train") / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def measure(out: Path, labels: str, threads: int, steps: int) -> dict:
    """Load the videos of a folder of labels in this process, and take steps; features may lie below OUT."""
    torch.set_num_threads(threads)
    os.environ["TMPDIR"], said = str(out), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("affuse").addHandler(handler)
    settings, device = train_settings(), torch.device("cpu")
    free, clock = psutil.virtual_memory().available, [time.perf_counter()]
    try:
        partitions = {"train": False, "validation": False}
        pool = Pool(FeatureStore(out / "store"))
        training, _ = labelled_corpora(pool, out / labels, partitions, settings, ["valence", "arousal"], device, FPS)
    except UsageError as error:
        return {"free_gib": free / GIB, "refused": str(error)}
    clock.append(time.perf_counter())
    windows = Windows(training, 300, settings.hop, Normalisation.fit(training))
    clock.append(time.perf_counter())
    channels = {m: [32] * 2 for m in WIDTHS}
    step, batches = own_side(WIDTHS, 300, device, "float32", channels=channels), windows.shuffled(12, 0)
    step(next(batches))
    wall, worked = time.perf_counter(), time.process_time()
    for batch in islice(batches, steps):
        step(batch)
    held = {
        kind: int(re.search(rf"{kind}:\s*(\d+) kB", STATUS.read_text())[1]) / 2**20 for kind in ("RssAnon", "RssFile")
    }
    return {
        "features_gib": sum(part.values.nbytes for part in training.features.values()) / GIB,
        "videos": len(training.videos),
        "frames": len(training.truth),
        "free_gib": free / GIB,
        "said": said,
        "load_seconds": clock[1] - clock[0],
        "normalisation_seconds": clock[2] - clock[1],
        "seconds_per_step": (time.perf_counter() - wall) / steps,
        "processor_seconds_per_step": (time.process_time() - worked) / steps,
        "peak_gib": peak() / GIB,
        "held_gib": held,
    }


def apart(*given) -> dict:
    """`measure` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as one:
        return one.submit(measure, *given).result()


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--gib", default=16.0, show_default=True, help="Size of the features.")
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Of torch.")
@click.option("--steps", default=60, show_default=True, help="Steps to take.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="File for the facts.")
def main(out: Path, gib: float, threads: int, steps: int, file: Path | None) -> None:
    if not (out / "drawn").exists():
        begun = time.perf_counter()
        draw(out, VIDEOS, int(gib * GIB / FRAME / VIDEOS))
        (out / "drawn").write_text(f"{time.perf_counter() - begun:.0f} s\n")
    facts = {
        "date": date.today().isoformat(),
        "machine": environment(),
        "threads": threads,
        "widths": WIDTHS,
        "steps": steps,
    }
    for labels in ("third", "all"):
        facts[labels] = apart(out, labels, threads, steps)
        click.echo(json.dumps({labels: facts[labels]}, indent=1))
        if file:
            file.write_text(json.dumps({**facts, "affuse": affuse.__version__}, indent=1) + "\n")


if __name__ == "__main__":
    main()
