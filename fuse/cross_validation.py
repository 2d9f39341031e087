"""Cross-validation: a run per fold, every video predicted by the one model that has not trained on it.

out/<fold>/       the fold's run folder        out/predictions/  out-of-fold predictions
out/ensemble/     all models on the videos that no fold has
out/folds.csv     who validates where          out/results.json  scores
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from features import FeatureStore
from features.device import pick_device
from features.errors import AffuseError, UsageError
from fuse.checkpoint import write_bytes
from fuse.data import load_corpus
from fuse.ensemble import METHODS, predict_together
from fuse.evaluation import labelled_corpus, pairs, predict_partition, score_pairs
from fuse.fingerprint import fingerprint
from fuse.folds import FOLD, SUBJECT, Fold, grouped_folds, listed_folds, read_videos
from fuse.intervals import PERMUTATIONS, bootstrap, permuted
from fuse.labels import find_labels
from fuse.run import Run, RunFolder, file_name, load_run, write_predictions
from fuse.settings import TrainSettings
from fuse.training import train

log = logging.getLogger("affuse")


def choose_folds(labels: Path, table: Path, by: str | None = None, k: int | None = None) -> list[Fold]:
    """Folds of the labelled videos that are not the test partition's.

    A fold per value of the table's column `by` ("fold" by default), or `k` folds that keep the values of `by`
    ("subject" by default) together. Raises as `fuse.folds` does.
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
