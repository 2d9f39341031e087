"""Cross-validation: a run per fold, every video predicted by the one that has not seen it, and all of them together."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from affuse.features import FeatureStore
from affuse.fuse.data.corpus import Corpus, Windows, load_corpus
from affuse.fuse.data.labels import find_labels
from affuse.fuse.experiments.folds import FOLD, SUBJECT, Fold, grouped_folds, listed_folds, read_videos
from affuse.fuse.scoring.evaluate import (
    labelled_corpus,
    pairs,
    predict_frames,
    predict_partition,
    score_pairs,
)
from affuse.fuse.scoring.metrics import PERMUTATIONS, bootstrap, ccc, permuted
from affuse.fuse.training.checkpoint import write_bytes
from affuse.fuse.training.run import Run, RunFolder, file_name, fingerprint, load_run, write_predictions
from affuse.fuse.training.settings import TrainSettings
from affuse.fuse.training.train import train

from affuse.device import pick_device
from affuse.errors import AffuseError, UsageError

METHODS = ("mean", "ccc")


def combine(predictions: np.ndarray, method: str = "mean") -> np.ndarray:
    """Predictions of one video by several models (K, T, targets) → (T, targets).

    mean: their mean. ccc: the gold standard of AVEC 2016 (`run_gold_standard.m`), models in the place of raters.
    With w_k the mean CCC of model k with every other one and m_k its mean over the video,

        x̂ = mean_k (x_k − m_k) + Σ_k w_k m_k / Σ_k w_k

    so that a model that agrees with none does not move the level. Raises UsageError for another method.
    """
    if method not in METHODS:
        raise UsageError(f"Unknown ensemble {method!r}. Known: {', '.join(METHODS)}.")
    mean = predictions.mean(axis=0)
    if method == "mean" or len(predictions) == 1:
        return mean
    level = predictions.mean(axis=1)  # (K, targets)
    weight = np.stack([_agreement(predictions[:, :, k]) for k in range(predictions.shape[2])], axis=1)
    total = weight.sum(axis=0)
    # Models that disagree all round have weights about 0, of either sign: nobody is to be trusted more.
    even = np.full_like(weight, 1 / len(weight))
    share = np.where((weight > 0).all(axis=0), weight / np.where(total == 0, 1, total), even)
    return mean - level.mean(axis=0) + (share * level).sum(axis=0)


def _agreement(series: np.ndarray) -> np.ndarray:
    """Mean CCC of each series (K, T) with all the others (K,)."""
    pairs = np.array([[ccc(x, y) for y in series] for x in series])
    np.fill_diagonal(pairs, 0)
    return pairs.sum(axis=1) / (len(series) - 1)


def predict_together(runs: Sequence[Run], corpus: Corpus, method: str, device: torch.device) -> np.ndarray:
    """The combined prediction (F, targets) for a corpus's frames, in [−1, 1]."""
    each = []
    for run in runs:
        settings = run.settings
        windows = Windows(corpus, settings.window, settings.hop, run.normalisation.to(device))
        each.append(predict_frames(run.model.to(device), windows, settings.batch, settings.precision))
    stacked = np.stack(each)
    videos = [combine(stacked[:, corpus.frames(video)], method) for video in range(len(corpus.videos))]
    return np.concatenate(videos).clip(-1, 1)


log = logging.getLogger("affuse")


def choose_folds(labels: Path, table: Path, by: str | None = None, k: int | None = None) -> list[Fold]:
    """Folds of the labelled videos that are not the test partition's.

    A fold per value of the table's column `by` ("fold" by default), or `k` folds that keep the values of `by`
    ("subject" by default) together. Raises as `affuse.fuse.experiments.folds` does.
    """
    split = find_labels(labels)
    test = split.get("test", {})
    usable = [video for name, files in split.items() if name != "test" for video in files]
    videos = read_videos(Path(table), usable, test)
    return listed_folds(videos, by or FOLD) if k is None else grouped_folds(videos, k, by or SUBJECT)


def crossval(
    store: Path | FeatureStore,
    labels: Path,
    out: Path,
    folds: Sequence[Fold],
    settings: TrainSettings | None = None,
    ensemble: str = "mean",
    score_test: bool = False,
    on_epoch: Callable[[str, dict], None] = lambda fold, row: None,
    on_fold: Callable[[str, bool], None] = lambda fold, made: None,
) -> dict:
    """Train and score every fold in `out`; finished folds are not made again, an unfinished one is gone on with. A fold
    whose features or labels have changed is trained anew, and a warning says what has.

    on_epoch hears (fold, row of metrics), on_fold (fold, whether it was trained now). Gives what `evaluate` gives of
    all out-of-fold predictions together, and "folds": {name: {"videos", "best_epoch", "ccc"}}, "ensemble":
    {"method", "videos"} and, if asked to score it, "test". Raises as `train` does, and UsageError for settings that
    name a split.
    """
    settings = settings or TrainSettings()
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    labels, out = Path(labels), Path(out)
    if settings.validation:
        raise UsageError(
            "The setting `validation` names one split; cross-validation makes its own. Leave it out."
        )
    if ensemble not in METHODS:
        raise UsageError(f"Unknown ensemble {ensemble!r}. Known: {', '.join(METHODS)}.")
    _write_folds(out, folds)
    runs: list[Run] = []
    for fold in folds:
        own = settings.model_copy(update={"validation": list(fold.validation), "resplit": True})
        path = out / file_name(fold.name)
        folder, data = RunFolder(path), fingerprint(store, labels, own)
        if folder.config.exists() and not folder.differences(own) and (changed := folder.changes(data)):
            log.warning("fold %s is trained anew: %s", fold.name, changed)
            folder.discard()
        finished = folder.holds(own, data)
        if not finished:
            train(store, labels, path, own, lambda row, name=fold.name: on_epoch(name, row))
        on_fold(fold.name, not finished)
        runs.append(load_run(path))
    result = _out_of_fold(runs, folds, store, labels, out, settings.device)
    result["ensemble"] = {"method": ensemble, **_others(runs, folds, store, out, ensemble, settings)}
    if score_test:
        result["test"] = _score_test(runs, store, labels, ensemble, settings)
    write_bytes(out / "results.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def _write_folds(out: Path, folds: Sequence[Fold]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Folder {out} cannot be made: {error.strerror}.") from None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "fold"])
    writer.writerows(sorted((video, fold.name) for fold in folds for video in fold.validation))
    write_bytes(out / "folds.csv", text.getvalue().encode())


def _out_of_fold(runs, folds, store, labels: Path, out: Path, device: str) -> dict:
    found, each, left_out = {}, {}, {}
    for run, fold in zip(runs, folds, strict=True):
        corpus, prediction = predict_partition(run, store, labels, "validation", device)
        own = pairs(corpus, prediction)
        found |= own
        left_out |= corpus.left_out
        present = corpus.any_present().cpu().numpy()
        for video, name in enumerate(corpus.videos):
            where = corpus.frames(video)
            write_predictions(
                out / "predictions" / f"{file_name(name)}.csv",
                corpus.time[where], corpus.targets, prediction[where], present[where],
            )  # fmt: skip
        each[fold.name] = {
            "videos": len(own),
            "best_epoch": run.best["epoch"],
            "ccc": score_pairs(own, corpus.targets)["ccc"],
        }
    targets = list(runs[0].model.targets)
    return {
        "run": str(out),
        "partition": f"out of {len(runs)} folds",
        **score_pairs(found, targets),
        "interval": bootstrap(found, targets),
        "chance": permuted(found, targets, PERMUTATIONS),
        "left_out": left_out,
        "folds": each,
    }


def _others(runs, folds, store: FeatureStore, out: Path, method: str, settings: TrainSettings) -> dict:
    """All models together on the store's videos that no fold has: those of the test partition, and unlabelled ones."""
    device, targets = pick_device(settings.device), list(runs[0].model.targets)
    held = {video for fold in folds for video in fold.validation}
    written, failed = [], {}
    for video in store.ids:
        if video in held:
            continue
        try:
            corpus = load_corpus(store, [video], settings.modalities, targets, device=device)
        except AffuseError as error:
            failed[video] = str(error)
            continue
        prediction = predict_together(runs, corpus, method, device)
        present = corpus.any_present().cpu().numpy()
        path = out / "ensemble" / f"{file_name(video)}.csv"
        write_predictions(path, corpus.time, targets, prediction, present)
        written.append(video)
    return {"videos": written, "failed": failed}


def _score_test(runs, store: FeatureStore, labels: Path, method: str, settings: TrainSettings) -> dict:
    device, targets = pick_device(settings.device), list(runs[0].model.targets)
    corpus = labelled_corpus(store, labels, "test", settings, targets, device)
    found = pairs(corpus, predict_together(runs, corpus, method, device))
    return {**score_pairs(found, targets), "interval": bootstrap(found, targets)}


def describe(result: dict, table: str) -> str:
    """Results for a terminal: `table` is the score table of all out-of-fold predictions."""
    targets = list(result["ccc"])
    width = max(map(len, ("fold", *result["folds"]))) + 2
    lines = [table, "", f"{'fold':{width}}{'videos':>7}{'epoch':>7}" + "".join(f"{t:>10}" for t in targets)]
    for name, fold in result["folds"].items():
        scores = "".join(f"{fold['ccc'][t]:10.4f}" for t in targets)
        lines.append(f"{name:{width}}{fold['videos']:7d}{fold['best_epoch']:7d}{scores}")
    means = [[fold["ccc"][t] for fold in result["folds"].values()] for t in targets]
    lines.append(f"{'mean':{width}}{'':14}" + "".join(f"{np.mean(m):10.4f}" for m in means))
    lines.append(
        "Every fold's epoch was chosen on the videos it is scored on, so the numbers flatter a little."
    )
    if videos := result["ensemble"]["videos"]:
        lines.append(
            f"{len(videos)} other videos predicted by all folds together ({result['ensemble']['method']})."
        )
    if "test" in result:
        lines.append("test: CCC " + ", ".join(f"{t} {v:.4f}" for t, v in result["test"]["ccc"].items()))
    return "\n".join(lines)
