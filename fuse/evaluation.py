"""Predict every frame of a corpus and score it. Training, `evaluate` and `predict` all come through here, so
the CCC that training records is the one that `evaluate` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from features import FeatureStore
from features.device import pick_device
from features.errors import AffuseError, UsageError
from fuse.adjustment import fit
from fuse.ccc import ccc, pearson, rmse
from fuse.data import Corpus, Windows, load_corpus, match
from fuse.intervals import PERMUTATIONS, Pairs, bootstrap, permuted
from fuse.labels import partition_files, read_track
from fuse.models import FusionModel
from fuse.run import Run, load_run
from fuse.settings import TrainSettings
from fuse.track import on_rows

METRICS = {"ccc": ccc, "pearson": pearson, "rmse": rmse}


def predict_frames(
    model: FusionModel, windows: Windows, batch: int, precision: str = "float32"
) -> np.ndarray:
    """The model's prediction for every frame of the windows' corpus: (F, targets) float64 in [-1, 1].

    A frame's prediction is the mean over the windows that cover it. Where a frame has no modality at all the
    model has nothing to go by; its prediction is interpolated between the nearest frames that have one.
    """
    device = windows.corpus.device
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        parts = [model(b.inputs, mask=b.mask).float() for b in windows.ordered(batch)]
    model.train(was_training)
    return onto_frames(windows, torch.cat(parts))


def onto_frames(windows: Windows, predictions: torch.Tensor) -> np.ndarray:
    """Per-window predictions (W, L, targets) as `predict_frames` gives them per frame."""
    corpus = windows.corpus
    present = corpus.any_present().cpu().numpy()
    frames = windows.to_frames(predictions.cpu().numpy())
    for video, values in enumerate(frames):
        where = corpus.frames(video)
        seen, time = present[where], corpus.time[where]
        for column in values.T:
            column[~seen] = np.interp(time[~seen], time[seen], column[seen])
    return np.concatenate(frames).clip(-1, 1)


def score(corpus: Corpus, prediction: np.ndarray) -> dict:
    """Agreement of a prediction (F, targets) with the corpus's labels, over its annotated frames.

    ccc, pearson, rmse: {target: …, "mean": …} over the concatenation of all videos (the challenge's
    definition); ccc_per_video: the mean over videos of each one's own CCC; per_video: {id: {"frames", target:
    CCC …}}. Where labels have a clock of their own, "frames" counts their rows. Raises AffuseError when no frame
    is annotated.
    """
    return {**score_pairs(pairs(corpus, prediction), corpus.targets), "left_out": dict(corpus.left_out)}


def pairs(corpus: Corpus, prediction: np.ndarray) -> Pairs:
    """Truth and prediction, each (n, targets) float64, of every video on its own annotated rows: its frames, or the
    rows of labels that have a clock of their own. Videos without such a row are not there."""
    truth, annotated = corpus.truth.cpu().numpy(), corpus.annotated.cpu().numpy()
    found = {}
    for video, name in enumerate(corpus.videos):
        where = corpus.frames(video)
        if name in corpus.timed:
            x, y = on_rows(corpus.timed[name], corpus.targets, corpus.time[where], prediction[where])
        else:
            x, y = (side[where][annotated[where]].astype(np.float64) for side in (truth, prediction))
        if len(x):
            found[name] = x, y
    return found


def score_pairs(pairs: Pairs, targets: list[str]) -> dict:
    """What `score` gives, but for "left_out", of truth and prediction already brought together."""
    if not pairs:
        raise AffuseError(
            "None of the frames to score is annotated: every label row is -5, or there is none."
        )
    per_video = {name: {"frames": len(x), **_each(targets, ccc, x.T, y.T)} for name, (x, y) in pairs.items()}
    x, y = (np.concatenate(side).T for side in zip(*pairs.values(), strict=True))
    result = {"videos": len(pairs), "frames": x.shape[1]}
    result |= {name: _each(targets, metric, x, y) for name, metric in METRICS.items()}
    result["ccc_per_video"] = {
        key: float(np.mean([video[key] for video in per_video.values()])) for key in (*targets, "mean")
    }
    return {**result, "per_video": per_video}


def _each(targets: list[str], metric, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """A metric of every target, rows of x and y (targets, N), and their mean."""
    values = {target: metric(x[i], y[i]) for i, target in enumerate(targets)}
    return {**values, "mean": float(np.mean(list(values.values())))}


def evaluate(
    run: Path | Run,
    store: Path | FeatureStore,
    labels: Path,
    partition: str = "validation",
    device: str = "auto",
    smooth: str = "none",
    delay: str = "none",
    rate: float | None = None,
    permutations: int = PERMUTATIONS,
) -> dict:
    """Score a finished run on one partition of a label folder: what `score` gives, with run and partition
    named, "interval" (95 %, over videos), "chance" (swapped predictions; none for `permutations` 0) and
    "adjustment" {"smoothing", "delay": {target: seconds}}.

    partition is train, validation, test, or "all" for a folder without a split. smooth, delay: "none", "fit" (on
    the train partition), or seconds. rate: rows per second of label files that do not say, where it is not the
    run's. Raises AffuseError for features made otherwise than the run's, labels that do not fit, or videos that are
    missing.
    """
    run = run if isinstance(run, Run) else load_run(run)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    settings = run.settings.model_copy(update={"label_rate": rate}) if rate else run.settings
    fitted = "fit" in (smooth, delay)
    if fitted and partition == "all":
        raise UsageError(
            "Smoothing and delay are fitted on training videos, and the partition all has them among those it scores. "
            "Score validation or test."
        )
    corpus, prediction = predict_partition(run, store, labels, partition, device, settings)
    basis = (
        predict_partition(run, store, labels, "train", device, settings) if fitted else (corpus, prediction)
    )
    adjustment = fit(*basis, pairs, smooth, delay)
    found = pairs(corpus, adjustment(corpus, prediction))
    return {
        "run": str(run.path),
        "partition": partition,
        "adjustment": asdict(adjustment),
        **score_pairs(found, corpus.targets),
        "interval": bootstrap(found, corpus.targets),
        "chance": permuted(found, corpus.targets, permutations) if permutations else {},
        "left_out": dict(corpus.left_out),
    }


def predict_partition(
    run: Run,
    store: FeatureStore,
    labels: Path,
    partition: str,
    device: str = "auto",
    settings: TrainSettings | None = None,
) -> tuple[Corpus, np.ndarray]:
    """The labelled videos of one partition and the run's prediction for them, (F, targets) float64.

    settings: the run's, where its labels are to be read otherwise. Raises as `evaluate` does.
    """
    run.check_features(store)
    target, settings = pick_device(device), settings or run.settings
    corpus = labelled_corpus(store, labels, partition, settings, list(run.model.targets), target)
    model, normalisation = run.model.to(target), run.normalisation.to(target)
    windows = Windows(corpus, settings.window, settings.hop, normalisation)
    return corpus, predict_frames(model, windows, settings.batch, settings.precision)


def labelled_corpus(
    store: FeatureStore,
    labels: Path,
    partition: str,
    settings: TrainSettings,
    targets: list[str],
    device: torch.device,
    views: bool = False,
) -> Corpus:
    """The videos of one partition with their labels, and with `views` all views of their faces, on the device."""
    files = partition_files(labels, partition, settings.validation, settings.resplit)
    videos = match(store, files, settings.allow_missing)
    tracks = {video: read_track(files[video], settings.label_rate) for video in videos}
    corpus = load_corpus(store, videos, settings.modalities, targets, tracks, device, views)
    return corpus.closed() if settings.gaps == "close" else corpus
