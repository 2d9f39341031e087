"""The demonstration: videos whose valence and arousal are known, through the whole pipeline, to one table.

    make videos ─ extract (offline profile) ─ train each model with each seed ─ score on speakers never seen in training

Everything is kept in one folder and made only once: run again after a stop, or with more seeds, it goes on.
"""

from __future__ import annotations

import shlex
import string
import time
from pathlib import Path
from typing import Any

import numpy as np

from affuse.console import Announce
from affuse.errors import AffuseError
from affuse.extract.extraction import Compute, extract_jobs, extract_settings
from affuse.extract.summary import describe
from affuse.extract.videos import find_jobs
from affuse.features.parts import MODALITIES
from affuse.features.record import Provenance
from affuse.features.store import FeatureStore
from affuse.files import write_text
from affuse.fuse import compare, load_run, train_settings
from affuse.fuse.data.labels import read_track
from affuse.fuse.experiments.compare import Comparison
from affuse.fuse.models.registry import MODELS as FAMILY
from affuse.fuse.reports.tables import write_json
from affuse.pipelines.demo.data import DemoData, make_dataset
from affuse.pipelines.demo.picture import draw

MODELS = {
    **{m: {"model": "unimodal", "modalities": [m]} for m in MODALITIES},
    "concatenation": {"model": "concat"},
    **{name: {"model": name} for name, spec in FAMILY.items() if not spec.fit and name not in ("concat", "unimodal")},
}
for model in ("jca", "ca"):  # whose encoders have no dropout
    MODELS[model]["dropout"] = {"encoder": 0.0}
SCHEDULE = {  # small enough for two cores; the published schedules are the presets of `fuse train`
    "preset": "grjca",
    "channels": {m: [32, 32, 16, 16] for m in MODALITIES},
    "dropout": {"encoder": 0.2},
    "window": 64,
    "hop": 16,
    "gaps": "mask",
    "normalisation": "channels",
    "shuffle": "epoch",
    "learning_rate": 1e-3,
    "warmup": "linear",
    "warmup_epochs": 2,
    "reload_best": False,
    "batch": 16,
    "epochs": 20,
    "stop_patience": 0,
    "tensorboard": False,
}
EXTRACTION = ("detection.min_face=0.3",)  # the one face fills most of the frame
HEADLINE = "rjcma"


def run_demo(
    out: Path, seeds: list[int], data_seed: int, device: str, *, announce: Announce, **how: Any
) -> tuple[dict, str]:
    """Run the demonstration in `out`: its facts, in plain JSON types (scores by model and seed, word accuracy,
    seconds), and the same as text; how: weights_dir and progress of `extract_jobs`. Raises AffuseError where a part of
    it cannot be had or a video fails."""
    clock = {}
    start = time.perf_counter()
    announce("Making talking-head videos with known valence and arousal.")
    data = make_dataset(out / "data", seed=data_seed)
    clock["videos"] = time.perf_counter() - start
    settings = extract_settings("offline", assignments=EXTRACTION)
    summary, provenance = extract_jobs(
        find_jobs(data.videos), out / "store", settings,
        allow_untrained=True, compute=Compute(device), announce=announce, **how,
    )  # fmt: skip
    announce(describe(summary))
    if summary.failed:
        video_id, reason = next(iter(summary.failed.items()))
        raise AffuseError(f"The demonstration stops: {video_id} could not be extracted: {reason}")
    clock["extraction"] = summary.seconds
    store = FeatureStore(out / "store")
    start = time.perf_counter()
    schedule = train_settings(None, (), **SCHEDULE, device=device)
    comparison = compare(store, data.labels, out / "comparison", MODELS, seeds, schedule, HEADLINE, announce, jobs=None)
    clock["training"] = time.perf_counter() - start
    run = load_run(out / "comparison" / "runs" / f"{HEADLINE}-seed{seeds[0]}")
    predictions = run.predict(store, data.validation, device)
    predictions.save(out / "predictions")
    first = next(iter(predictions.values()))
    truth = read_track(data.labels / "validation" / f"{first.id}.txt").values
    draw(out / "picture.png", data.videos / f"{first.id}.mp4", store[first.id], first, truth)
    facts = {
        "seeds": seeds,
        "train": list(data.train),
        "validation": list(data.validation),
        "untrained": provenance.untrained,
        "word_accuracy": word_accuracy(store, data),
        "comparison": comparison.facts,
        "seconds": {name: round(spent, 1) for name, spent in clock.items()},
    }
    text = report(facts, comparison, provenance, out)
    write_json(out / "results.json", facts)
    write_text(out / "results.txt", text + "\n")
    return facts, text


def word_accuracy(store: FeatureStore, data: DemoData) -> float:
    """Part of the spoken words that the transcripts have right: 1 − word errors / words, over all videos."""
    errors = words = 0
    for video_id in (*data.train, *data.validation):
        spoken, heard = (plain(data.words(video_id)), plain(store.read(video_id, modalities=("text",)).transcript))
        errors += word_errors(spoken, heard)
        words += len(spoken)
    return 1 - errors / words


def plain(text: str) -> list[str]:
    return text.lower().translate(str.maketrans("", "", string.punctuation)).split()


def word_errors(spoken: list[str], heard: list[str]) -> int:
    """Least number of words put in, left out or changed (Levenshtein distance over words)."""
    row = np.arange(len(heard) + 1)
    for i, word in enumerate(spoken, 1):
        changed = row[:-1] + [word != other for other in heard]
        best = np.minimum(np.concatenate([[i], changed]), np.concatenate([[i], row[1:] + 1]))
        # What is left is inserting: best[j] = min over k ≤ j of best[k] + (j − k).
        row = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))
    return int(row[-1])


def report(facts: dict, comparison: Comparison, provenance: Provenance, out: Path) -> str:
    """The table and what stands around it."""
    trained = [f"{part} ({b.name})" for part, b in provenance.backbones.items() if b.trained]
    lines = [
        f"CCC on {len(facts['validation'])} held-out speakers, {len(facts['train'])} trained on. The best epoch is "
        "chosen on the same speakers, for every model alike.",
        "",
        comparison.text,
        "",
        f"Words that Whisper got right: {100 * facts['word_accuracy']:.0f} %.",
        f"Untrained, seeded backbones: {', '.join(provenance.untrained) or 'none'}. Trained: {', '.join(trained)}.",
        "Synthetic data: this shows that the machinery works, not how well it reads people.",
        "Seconds: " + ", ".join(f"{name} {spent:.0f}" for name, spent in facts["seconds"].items()) + ".",
        f"Predictions and figures of the held-out speakers: {out / 'predictions'}; one of them: {out / 'picture.png'}; "
        f"runs: {out / 'comparison'}. A page to look at: affuse report {shlex.quote(str(out))}",
    ]
    return "\n".join(lines)
