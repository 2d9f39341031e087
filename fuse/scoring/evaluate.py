"""Predict every frame of a corpus and score it. Training, `evaluate` and `predict` all come through here, so
the CCC that training records is the one that `evaluate` prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from affuse.features import FeatureStore
from affuse.fuse.data.corpus import Corpus, Windows, load_corpus, match
from affuse.fuse.data.labels import partition_files, read_track
from affuse.fuse.data.track import on_rows
from affuse.fuse.models.model import FusionModel
from affuse.fuse.scoring.metrics import PERMUTATIONS, Pairs, bootstrap, ccc, pearson, permuted, rmse
from affuse.fuse.training.run import Run, load_run
from affuse.fuse.training.settings import TrainSettings

from affuse.device import pick_device
from affuse.errors import AffuseError, UsageError

SMOOTHINGS = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)  # seconds tried for the moving mean; 0 is none
DELAYS = tuple(round(0.2 * i, 1) for i in range(26))  # seconds tried, 0 to 5


@dataclass(frozen=True)
class Adjustment:
    """By target: the width of the centred moving mean, and by how much predictions are moved later; seconds."""

    smoothing: dict[str, float]
    delay: dict[str, float]

    def __call__(self, corpus: Corpus, prediction: np.ndarray) -> np.ndarray:
        """prediction (F, targets) of a corpus, adjusted within each video."""
        adjusted = prediction.copy()
        for video in range(len(corpus.videos)):
            where = corpus.frames(video)
            for k, target in enumerate(corpus.targets):
                series = smooth(corpus.time[where], prediction[where, k], self.smoothing[target])
                adjusted[where, k] = later(corpus.time[where], series, self.delay[target])
        return adjusted


def smooth(time: np.ndarray, values: np.ndarray, seconds: float) -> np.ndarray:
    """Centred moving mean of values (T,) at `time` (T,): of all rows up to seconds/2 away. 0 leaves them as they
    are."""
    if not seconds:
        return values
    first = np.searchsorted(time, time - seconds / 2 - 1e-6)
    stop = np.searchsorted(time, time + seconds / 2 + 1e-6)
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (total[stop] - total[first]) / (stop - first)


def later(time: np.ndarray, values: np.ndarray, seconds: float) -> np.ndarray:
    """values (T,) moved `seconds` later: raters mark at t what they saw before. The first value fills the start."""
    return np.interp(time - seconds, time, values)


def fit(
    corpus: Corpus,
    prediction: np.ndarray,
    pairs: Callable[[Corpus, np.ndarray], Pairs],
    smoothing: str = "none",
    delay: str = "none",
) -> Adjustment:
    """The smoothing and delay of each target; where they are fitted, those with the best CCC on `corpus`, which must
    then be training videos.

    Each is "none", "fit", or a number of seconds. Smoothing is chosen first, then the delay. `pairs` brings truth
    and prediction together as scoring does. Raises UsageError for anything else.
    """
    smoothings, delays = _choices("--smooth", smoothing, SMOOTHINGS), _choices("--delay", delay, DELAYS)
    chosen = Adjustment(
        dict.fromkeys(corpus.targets, smoothings[0]), dict.fromkeys(corpus.targets, delays[0])
    )
    for choices, settings in ((smoothings, chosen.smoothing), (delays, chosen.delay)):
        if len(choices) == 1:
            continue
        scores = []
        for seconds in choices:
            settings |= dict.fromkeys(corpus.targets, seconds)
            found = pairs(corpus, chosen(corpus, prediction)).values()
            x, y = (np.concatenate(side) for side in zip(*found, strict=True))
            scores.append([ccc(x[:, k], y[:, k]) for k in range(x.shape[1])])
        best = np.argmax(scores, axis=0)  # the first of equals: the smallest change
        settings |= {target: choices[best[k]] for k, target in enumerate(corpus.targets)}
    return chosen


def _choices(option: str, text: str, grid: tuple[float, ...]) -> tuple[float, ...]:
    if text == "none":
        return (0.0,)
    if text == "fit":
        return grid
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"{option} {text}: expected none, fit, or a number of seconds.")
    return (seconds,)


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
