"""Cross-validation: a run per fold, every video predicted by the one that has not seen it, and all of them together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.errors import UsageError, counted
from affuse.features import FeatureStore
from affuse.files import as_path, file_name, make_folder
from affuse.fuse.data.clock import choose_rate
from affuse.fuse.data.corpus import Corpus, Features, as_store
from affuse.fuse.data.fingerprint import fingerprint
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import Pool
from affuse.fuse.experiments.folds import FOLD, SUBJECT, Fold, grouped_folds, listed_folds, read_videos
from affuse.fuse.reports.tables import write_csv, write_json
from affuse.fuse.scoring.estimate import Estimate
from affuse.fuse.scoring.evaluate import judge, pairs, score_pairs
from affuse.fuse.scoring.metrics import PERMUTATIONS, ccc
from affuse.fuse.scoring.predict import by_video
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.loading import load_run
from affuse.fuse.training.parallel import Trained, Training, train_each
from affuse.fuse.training.run import Run, labelled_corpora
from affuse.fuse.training.settings import TrainSettings, as_settings

log = logging.getLogger("affuse")

METHODS = ("mean", "ccc")
TAKEN = ("", ".", "..", "predictions", "ensemble", "folds.csv", "results.json")  # beside the folders of the folds


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


def predict_together(runs: Sequence[Run], corpus: Corpus, method: str) -> Estimate:
    """The combined prediction of runs on one device for a corpus's frames. Of folds nobody knows how sure they are
    together: no video is new to all of them."""
    stacked = np.stack([run.estimate(corpus).values for run in runs])
    videos = [combine(stacked[:, corpus.frames(video)], method) for video in range(len(corpus.videos))]
    return Estimate(np.concatenate(videos).clip(-1, 1))


def choose_folds(labels: Path | str, table: Path | str, by: str | None = None, k: int | None = None) -> list[Fold]:
    """Folds of the labelled videos that are not the test partition's.

    A fold per value of the table's column `by` ("fold" by default), or `k` folds that keep the values of `by`
    ("subject" by default) together. Raises as `affuse.fuse.experiments.folds` does.
    """
    split = find_labels(labels)
    test = split.get("test", {})
    usable = [video for name, files in split.items() if name != "test" for video in files]
    videos = read_videos(as_path("a table of videos", table), usable, test)
    return listed_folds(videos, by or FOLD) if k is None else grouped_folds(videos, k, by or SUBJECT)


def crossval(
    store: Features,
    labels: Path | str,
    out: Path | str,
    folds: Sequence[Fold],
    settings: TrainSettings | None = None,
    ensemble: str = "mean",
    score_test: bool = False,
    on_epoch: Callable[[dict], None] | None = None,
    on_fold: Callable[[str, bool], None] = lambda fold, made: None,
    jobs: int | None = 1,
) -> dict:
    """Train and score every fold in `out`, so many at the same time as `compare` has it with jobs; finished folds are
    not made again, an unfinished one is gone on with. A fold whose features or labels have changed is trained anew, and
    a warning says what has.

    All folds read features at one rate, which the setting fps gives for their videos together. With the setting
    choose=inner a fold's epoch is chosen on the videos of the next fold, which then do not train, and its own videos
    are scored only; else on the videos it is scored on, which flatters.

    on_epoch gets the rows of `fuse.train`, on_fold (fold, whether it was trained now). Gives what `evaluate` gives of
    all out-of-fold predictions together, and "folds": {name: {"videos", "best_epoch", "ccc"}}, "ensemble": {"method",
    "videos"} and, if asked to score it, "test". Raises as `train` does, and UsageError for settings that name a split.
    """
    (result,) = crossval_each(
        store, labels, {"": (out, settings)}, folds, ensemble, score_test,
        on_epoch, lambda _, *fold: on_fold(*fold), jobs,
    ).values()  # fmt: skip
    return result


def crossval_each(
    store: Features,
    labels: Path | str,
    models: Mapping[str, tuple[Path | str, TrainSettings | None]],
    folds: Sequence[Fold],
    ensemble: str = "mean",
    score_test: bool = False,
    on_epoch: Callable[[dict], None] | None = None,
    on_fold: Callable[[str, str, bool], None] = lambda model, fold, made: None,
    jobs: int | None = 1,
) -> dict[str, dict]:
    """`crossval` of several models {name: (out, settings)} over the same folds and features, which are in memory once:
    the folds of all are trained side by side. on_fold gets (name, fold, whether it was trained now)."""
    if ensemble not in METHODS:
        raise UsageError(f"Unknown ensemble {ensemble!r}. Known: {', '.join(METHODS)}.")
    store = as_store(store)
    videos = [video for fold in folds for video in fold.validation if video in store]
    each = [_Folds(name, *given, folds) for name, given in models.items()]
    trainings = [run for one in each for run in one.trainings(store, labels, videos)]
    pool = Pool(store, videos, shared=jobs != 1)  # a fold trains on what others validate on

    def end(number: int, trained: Trained) -> None:
        model, fold = divmod(number, len(folds))
        each[model].made[fold] = trained
        on_fold(each[model].name, folds[fold].name, trained.now)

    train_each(pool, labels, trainings, jobs, on_epoch=on_epoch, on_end=end)
    return {one.name: one.result(pool, labels, ensemble, score_test) for one in each}


class _Folds:
    """The cross-validation of one model. made: of every fold what has been trained, by its number. Raises UsageError
    for settings or folds that cannot be."""

    def __init__(self, name: str, out: Path | str, settings: TrainSettings | None, folds: Sequence[Fold]):
        self.name, self.folds, self.settings = name, folds, as_settings(settings)
        self.out = as_path("a folder for the runs of the folds", out)
        self.made: dict[int, Trained] = {}
        if self.settings.validation or self.settings.held_out:
            raise UsageError("The settings `validation` and `held_out` name one split; leave it to cross-validation.")
        if self.settings.choose == "inner" and len(folds) < 3:
            raise UsageError("choose=inner takes one fold to score, one to choose, others to train: 3 folds at least.")
        if taken := [fold.name for fold in folds if fold.name.lower() in TAKEN]:
            raise UsageError(
                f"A fold cannot be named {taken[0]!r}: {self.out / taken[0]} holds something else. Rename it."
            )

    def folder(self, fold: Fold) -> RunFolder:
        return RunFolder(self.out / file_name(fold.name))

    def trainings(self, store: FeatureStore, labels: Path | str, videos: list[str]) -> list[Training]:
        """One of each fold, in a folder that can take it; videos are those of all folds."""
        make_folder(self.out)
        held = sorted((video, fold.name) for fold in self.folds for video in fold.validation)
        write_csv(self.out / "folds.csv", pd.DataFrame(held, columns=["video", "fold"]))
        fps, trainings = choose_rate(store, videos, self.settings.fps) or "own", []
        for fold, following in zip(self.folds, [*self.folds[1:], *self.folds[:1]], strict=True):
            inner = self.settings.choose == "inner"
            split = {
                "validation": list((following if inner else fold).validation),
                "held_out": list(fold.validation) if inner else [],
                "resplit": True,
            }
            own = self.settings.model_copy(update={"fps": fps, **split})
            name = f"{self.name}, fold {fold.name}".removeprefix(", ")
            folder, data = self.folder(fold), fingerprint(store, labels, own.split)
            if folder.config.exists() and not folder.differences(own) and (changed := folder.changes(data)):
                log.warning("%s is trained anew: %s", name, changed)
                folder.discard()
            folder.check(own, data)
            trainings.append(Training(name, folder, own))
        return trainings

    def result(self, pool: Pool, labels: Path | str, ensemble: str, score_test: bool) -> dict:
        """What `crossval` gives, once all folds are made; written, too."""
        runs = [load_run(self.folder(fold).path).on(self.settings.device) for fold in self.folds]
        made = [self.made[fold] for fold in range(len(runs))]
        result = _out_of_fold(runs, self.folds, made, pool, labels, self.out)
        result["ensemble"] = {"method": ensemble, **_others(runs, self.folds, pool.store, self.out, ensemble)}
        if score_test:
            first, test = runs[0], {"test": False}
            how = self.settings, first.model.targets, first.device, first.fps
            (corpus,) = labelled_corpora(pool, labels, test, *how)
            result["test"] = judge(pairs(corpus, predict_together(runs, corpus, ensemble).values), first.model.targets)
        write_json(self.out / "results.json", result)
        return result


def _out_of_fold(runs, folds, made: Sequence[Trained], pool: Pool, labels: Path | str, out: Path) -> dict:
    found, each, left_out = {}, {}, {}
    for run, fold, (corpus, estimate, _) in zip(runs, folds, made, strict=True):
        if run.settings.choose == "inner":
            corpus, estimate = run.predict_partition(pool.store, labels, "held_out", str(run.device), pool=pool)
        own = pairs(corpus, estimate.values)
        found |= own
        left_out |= corpus.left_out
        for prediction in by_video(corpus, estimate).values():
            prediction.save(out / "predictions", figures=False)
        agreement = score_pairs(own, corpus.targets)["ccc"]
        each[fold.name] = {"videos": len(own), "best_epoch": run.best["epoch"], "ccc": agreement}
    return {
        "run": str(out),
        "partition": f"out of {counted(len(runs), 'fold')}",
        "choose": runs[0].settings.choose,
        **judge(found, runs[0].model.targets, PERMUTATIONS),
        "left_out": left_out,
        "folds": each,
    }


def _others(runs: Sequence[Run], folds, store: FeatureStore, out: Path, method: str) -> dict:
    """All models together on the store's videos that no fold has: those of the test partition, and unlabelled ones."""
    held = {video for fold in folds for video in fold.validation}

    def save(here: Run, corpus: Corpus) -> None:
        (made,) = by_video(corpus, predict_together(runs, corpus, method)).values()
        made.save(out / "ensemble", figures=False)

    others = [video for video in store.ids if video not in held]
    written, failed = runs[0].each_video(store, others, str(runs[0].device), save)
    return {"videos": list(written), "failed": failed}
