"""What pages are made of in tests: predictions, the store and videos that they came from, labels, runs, comparisons."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

import tiny
from affuse import fuse
from affuse.features import FeatureStore
from affuse.features.record import VideoFeatures
from affuse.fuse.scoring.predict import Prediction
from media import talking_head

FPS, FRAMES = 10, 40
FACELESS = slice(10, 20)  # frames: from 1 to 2 s
WORDS = [(0.5, 0.9, "yes"), (1.2, 1.6, "<i>no</i>"), (2.0, 2.5, "Straße")]
TALK = "set/talk"
HOSTILE = "x</script><script>document.title='broken'<!--&amp;"
TIME = np.arange(FRAMES) / FPS
VALENCE, AROUSAL = 0.8 * np.sin(TIME), 0.5 * np.cos(TIME)


def record(name: str, faceless: slice = FACELESS) -> VideoFeatures:
    """A video of 4 s with the words above, and in some frames no face."""
    made, _ = tiny.make_video(name, FRAMES, 0)
    there = np.ones(FRAMES, bool)
    there[faceless] = False
    box = np.tile(np.float32([40, 20, 120, 110]), (FRAMES, 1))
    box[~there] = np.nan
    start, end, word = zip(*WORDS, strict=True)
    return dataclasses.replace(
        made,
        fps=float(FPS),
        duration=FRAMES / FPS,
        visual=dataclasses.replace(
            made.visual,
            embedding=made.visual.embedding * there[:, None],
            time=TIME,
            valid=there,
            box=box,
            confidence=there.astype(np.float32),
        ),
        audio=dataclasses.replace(made.audio, time=TIME),
        text=dataclasses.replace(
            made.text,
            embedding=made.text.embedding[: len(WORDS)],
            start=np.array(start),
            end=np.array(end),
            word=np.array(word),
            confidence=np.ones(len(WORDS), np.float32),
        ),
    )


def prediction(name: str, scale: float = 1.0, faceless: slice = FACELESS) -> Prediction:
    there = np.ones(FRAMES, bool)
    there[faceless] = False
    present = {"visual": there, "audio": np.ones(FRAMES, bool)}
    return Prediction(name, TIME, ("valence", "arousal"), scale * np.stack([VALENCE, AROUSAL], 1), present)


def make_scene(folder: Path) -> Path:
    """A folder with predictions/ of two videos, the store they came from below it, videos/ and labels/."""
    predictions = folder / "predictions"
    store = FeatureStore(predictions / "features" / "0123456789ab", create=True)
    for name, scale, faceless in ((TALK, 1.0, FACELESS), (HOSTILE, 0.5, slice(0))):
        store.write(record(name, faceless), tiny.provenance())
        prediction(name, scale, faceless).save(predictions, figures=False)
        talking_head(folder / "videos" / f"{name}.mp4", seconds=FRAMES / FPS, fps=FPS)
        truth = np.stack([VALENCE, AROUSAL], 1)
        tiny.write_labels(folder / "labels" / "validation" / f"{name}.txt", truth)
    broken = VideoFeatures.undecodable("gone", record("gone").source, "no <video> in it", tiny.provenance())
    store.write(broken, tiny.provenance())
    return folder


def train_run(folder: Path) -> tuple[Path, FeatureStore, Path]:
    """A finished run, and the store and labels that it was trained on."""
    store, labels = tiny.make_data(folder, 3, 2)
    fuse.train(store, labels, folder / "run", tiny.small(epochs=2))
    return folder / "run", store, labels


MEANS = {"concat": 0.5, "rjcma": 0.6, HOSTILE: 0.62, "unimodal@audio": 0.3}
APART = {"concat": (0.1, 0.04, 0.16), HOSTILE: (-0.02, -0.08, 0.04), "unimodal@audio": (0.3, 0.2, 0.4)}


def write_comparison(folder: Path, means=MEANS, apart=APART, **changes) -> Path:
    """What `compare` leaves of models of these mean CCCs, and of what rjcma's is less each other's, and how sure."""
    models = [
        {"model": name, "valence": mean + 0.1, "valence_sd": 0.02, "arousal": mean - 0.1, "arousal_sd": 0.03,
         "mean": mean, "mean_sd": 0.01, "seeds": 2, "videos": 7, "parameters": 12_345, "seconds_per_epoch": 0.25}
        for name, mean in means.items()
    ]  # fmt: skip
    differences = [
        {"model": name, "target": target, "videos": 7, "above_zero": 0.9, "difference": d, "low": low, "high": high}
        for name, (d, low, high) in apart.items()
        for target in ("valence", "mean")
    ]  # fmt: skip
    facts = {
        "reference": "rjcma", "seeds": [0, 1], "targets": ["valence", "arousal"], "reference_named": False,
        "environment": {"date": "2026-11-28", "affuse": "0.1.0", "torch": "2.14", "hardware": "2 CPU cores"},
        "protocol": {"preset": "affuse", "stop_patience": 3}, "interval_method": "95 % by resamples", "untrained": [],
        "baselines": ["concat"], "models": models, "scores": [], "differences": differences, **changes,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(facts))
    for name in ("table.csv", "differences.csv"):
        (folder / name).touch()
    return folder
