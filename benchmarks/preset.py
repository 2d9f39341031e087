"""What each ingredient of the preset `affuse` is worth: RJCMA trained with it and without, on unlike data sets, with
three seeds; and what is lost when half of the videos have no sound.

    affuse demo --out DEMO
    python benchmarks/preset.py DEMO OUT --json benchmarks/preset.json

`--only delay` does one of the sets, so that several may be done at once; stopped or killed, it goes on. Beside the
demo's speakers, as they are and under noise, there are sets drawn here: courses of valence and arousal, which features
show under noise. In `delay` ratings come two seconds late, in `missing` modalities are gone for a stretch or for all of
a session, in `offsets` everybody adds something of his own to the features.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import date
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter1d

import affuse
from affuse.features import FeatureStore, Status
from affuse.features.importing import import_features
from affuse.features.record import settings_hash
from affuse.fuse.reports.tables import mean_and_spread
from affuse.fuse.scoring.evaluate import pairs, score_pairs

SEEDS = (0, 1, 2)
TARGETS = ["valence", "arousal"]
WIDTHS = {"visual": 64, "audio": 32, "text": 48}
SHOWS = {"visual": (1.0, 0.2), "audio": (0.2, 1.0), "text": (0.7, 0.7)}  # of valence and arousal, by modality
CHANGES: dict[str, dict] = {
    "affuse": {},
    "learning_rate 3e-4": {"learning_rate": 3e-4},
    "128 wide": {"channels": {m: [128] * 4 for m in WIDTHS}},
    "loss ccc": {"loss": "ccc"},
    "loss mse": {"loss": "mse"},
    "modality_dropout 0": {"modality_dropout": 0.0},
    "normalisation text": {"normalisation": "text"},
    "concat": {"model": "concat"},
    "linear": {"model": "linear"},
    "linear-rescaled": {"model": "linear-rescaled"},
}
DEAF = "visual, text"  # trained without sound
ON_DEMO: dict[str, dict] = {  # only there: the published sizes are slow
    DEAF: {"modalities": ["visual", "text"]},
    "size published": {"size": "published"},
    "preset grjca": {"preset": "grjca"},
    "preset released": {"preset": "released"},
}


def draw(out: Path, seed: int, late: float = 0.0, gone: float = 0.0, own: float = 0.0) -> None:
    """12 sessions to train on and 8 to validate, a minute each at 10 frames a second.

    late: seconds by which ratings follow what the features show; gone: the share of sessions without sound, or without
    words, and of time without a face; own: spread of what a person adds to the features.
    """
    rng, frames, fps = np.random.default_rng(seed), 600, 10.0
    mixing = {m: rng.normal(size=(4, width)) for m, width in WIDTHS.items()}
    for i in range(20):
        name, time, lag = f"{'train' if i < 12 else 'validation'}{i:02d}", np.arange(frames) / fps, int(late * fps)
        noise = rng.normal(size=(2, frames + 1200, 2))
        course = gaussian_filter1d(noise[0], 20, axis=0) + 2.5 * gaussian_filter1d(noise[1], 150, axis=0)
        course = (0.25 * course / course.std(0) + rng.normal(0, 0.12, 2))[600 - lag :]
        truth, seen, person = course[:frames], course[lag:], rng.normal(0, own, 2)
        starts = np.arange(0.1, frames / fps - 1, 0.6)
        rows = {"visual": time, "audio": time, "text": starts}
        for m, at in rows.items():
            shown = np.column_stack([seen[(at * fps).astype(int)] * SHOWS[m], np.tile(person / 3, (len(at), 1))])
            features = 3 * shown @ mixing[m] + rng.normal(0, 20, (len(at), WIDTHS[m]))
            if m != "visual" and rng.random() < gone:
                continue
            for begin in rng.integers(frames, size=6) if m == "visual" and gone else ():
                features[begin : begin + int(frames * gone / 4)] = np.nan
            clock = {"start": at, "end": at + 0.5} if m == "text" else {"time": at}
            (out / "features" / m).mkdir(parents=True, exist_ok=True)
            np.savez(out / "features" / m / f"{name}.npz", embedding=features.astype(np.float32), **clock)
        labels = pd.DataFrame({"time": time, **dict(zip(("valence", "arousal"), truth.clip(-1, 1).T, strict=True))})
        file = out / "labels" / name.rstrip("0123456789") / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        labels.to_csv(file, index=False)
    import_features(out / "features", out / "store")


def add_noise(store: FeatureStore, out: Path, share: float) -> None:
    """The same features, under noise of `share` of the deviation of all numbers of a modality."""
    rng, noisy, made = np.random.default_rng(0), FeatureStore(out, create=True), store.provenance
    settings = {**made.settings, "noise": share}
    made = replace(made, settings=settings, settings_hash=settings_hash(settings, made.backbones))
    rows = {m: [np.ravel(getattr(store[v], m).embedding) for v in store] for m in WIDTHS}
    spread = {m: np.concatenate(rows[m]).std(dtype=float) for m in WIDTHS}
    for name in store:
        video = store[name]
        for m in WIDTHS:
            part = getattr(video, m)
            noise = rng.normal(0, share * spread[m], part.embedding.shape)
            if m == "visual":
                noise[~part.valid] = 0
            video = replace(video, **{m: replace(part, embedding=(part.embedding + noise).astype(np.float16))})
        noisy.write(video, made)


def without_sound(store: FeatureStore, out: Path, videos: list[str]) -> FeatureStore:
    """The same features of these videos, without sound."""
    deaf = FeatureStore(out, create=True)
    for name in videos:
        video = store[name]
        audio = replace(video.audio, embedding=video.audio.embedding[:0], time=video.audio.time[:0],
                        status=Status.NO_AUDIO, reason="taken away")  # fmt: skip
        deaf.write(replace(video, audio=audio), store.provenance)
    return deaf


def lost(runs: dict[str, list[affuse.Run]], store: FeatureStore, labels: Path, out: Path) -> dict[str, list[float]]:
    """What is lost of the mean CCC, seed by seed, where half of the validation videos have no sound: the mean over all
    halves that there are. Of DEAF: where it takes the place of `affuse` in these videos."""
    videos = sorted(file.stem for file in (labels / "validation").iterdir())
    deaf = without_sound(store, out, videos)

    def predicted(name: str, features: FeatureStore) -> list:
        return [pairs(corpus, estimate.values) for corpus, estimate in
                (run.predict_partition(features, labels, "validation") for run in runs[name])]  # fmt: skip

    def mean(found: dict, instead: dict, half: tuple[str, ...]) -> float:
        return score_pairs({v: (instead if v in half else found)[v] for v in videos}, TARGETS)["ccc"]["mean"]

    whole = {name: predicted("affuse" if name == DEAF else name, store) for name in runs}
    silent = {name: predicted(name, store if name == DEAF else deaf) for name in runs}
    halves = list(combinations(videos, len(videos) // 2))
    return {
        name: [mean(a, b, ()) - float(np.mean([mean(a, b, half) for half in halves]))
               for a, b in zip(whole[name], silent[name], strict=True)]
        for name in runs
    }  # fmt: skip


SETS = {
    "demo": lambda demo, out: None,
    "demo noisy": lambda demo, out: add_noise(FeatureStore(demo / "store"), out / "store", 0.5),
    "delay": lambda demo, out: draw(out, seed=1, late=2.0),
    "missing": lambda demo, out: draw(out, seed=2, gone=0.4),
    "offsets": lambda demo, out: draw(out, seed=3, own=1.5),
}


def measure(name: str, demo: Path, out: Path) -> dict:
    """Every change on one set with every seed: the rows of `compare`, and what is lost without sound."""
    if not out.exists():
        SETS[name](demo, out)
    store = demo / "store" if name == "demo" else out / "store"
    labels = demo / "data" / "labels" if name.startswith("demo") else out / "labels"
    changes = CHANGES | ON_DEMO if name == "demo" else CHANGES
    found = affuse.compare(
        store, labels, out / "runs", changes, SEEDS, affuse.train_settings(model="rjcma", tensorboard=False),
        announce=click.echo, reference="affuse",
    )  # fmt: skip
    judged = ["affuse", "modality_dropout 0", *([DEAF] if DEAF in changes else [])]
    runs = {model: [affuse.load_run(path) for path in found.scores[found.scores["model"] == model]["run"]]
            for model in judged}  # fmt: skip
    models = [{key: value for key, value in row.items() if key != "seconds_per_epoch"} for row in found.facts["models"]]
    silence = lost(runs, FeatureStore(store), labels, out / "deaf")
    return {"models": models, "differences": found.facts["differences"], "lost without sound": silence}


@click.command()
@click.argument("demo", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="Sets to do.  [default: all]")
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Of torch.")
@click.option("--json", "facts", type=click.Path(path_type=Path), help="File for the facts.")
def main(demo: Path, out: Path, only: tuple[str, ...], threads: int, facts: Path | None) -> None:
    torch.set_num_threads(threads)
    sets = {name: measure(name, demo, out / name.replace(" ", "-")) for name in only or SETS}
    where = {"date": date.today().isoformat(), "affuse": affuse.__version__, "torch": torch.__version__}
    if facts:
        facts.write_text(json.dumps({**where, "seeds": SEEDS, "sets": sets}, indent=1) + "\n")
    click.echo(f"| | {' | '.join(sets)} |\n|---|{'---|' * len(sets)}")
    for change in CHANGES | ON_DEMO:
        cells = [
            next(
                (mean_and_spread(row["mean"], row["mean_sd"]) for row in found["models"] if row["model"] == change), ""
            )
            for found in sets.values()
        ]
        click.echo(f"| {change} | {' | '.join(cells)} |")
    for name, found in sets.items():
        for model, by_seed in found["lost without sound"].items():
            loss = mean_and_spread(float(np.mean(by_seed)), float(np.std(by_seed, ddof=1)))
            click.echo(f"{name}, half without sound: {model} loses {loss}")


if __name__ == "__main__":
    main()
