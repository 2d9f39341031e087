"""Scores of a prediction against its labels, on the labels' own rows. Training, `evaluate` and cross-validation all
come through here, so the CCC that training records is the one that `evaluate` prints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affuse.errors import AffuseError, UsageError
from affuse.fuse.data.corpus import Corpus
from affuse.fuse.data.track import SLACK, mean_between, on_rows
from affuse.fuse.scoring.estimate import BAND, REACH, Estimate
from affuse.fuse.scoring.metrics import METRICS, OF_SCORES, Pairs, bootstrap, ccc, each_target, permuted

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
    reach = seconds / 2 + SLACK
    return mean_between(time, values[:, None], np.ones(len(time), bool), time - reach, time + reach)[0][:, 0]


def later(time: np.ndarray, values: np.ndarray, seconds: float) -> np.ndarray:
    """values (T,) moved `seconds` later: raters mark at t what they saw before. The first value fills the start."""
    return np.interp(time - seconds, time, values)


def fit(corpus: Corpus, prediction: np.ndarray, smoothing: str = "none", delay: str = "none") -> Adjustment:
    """The smoothing and delay of each target; where they are fitted, those with the best CCC on `corpus`, which must
    then be training videos.

    Each is "none", "fit", or a number of seconds. Smoothing is chosen first, then the delay. Raises UsageError for
    anything else.
    """
    smoothings, delays = _choices("--smooth", smoothing, SMOOTHINGS), _choices("--delay", delay, DELAYS)
    chosen = Adjustment(dict.fromkeys(corpus.targets, smoothings[0]), dict.fromkeys(corpus.targets, delays[0]))
    for choices, settings in ((smoothings, chosen.smoothing), (delays, chosen.delay)):
        if len(choices) == 1:
            continue
        scores = []
        for seconds in choices:
            settings |= dict.fromkeys(corpus.targets, seconds)
            found = pairs(corpus, chosen(corpus, prediction)).values()
            x, y = (np.concatenate(side) for side in zip(*found, strict=True))
            scores.append(each_target(ccc, corpus.targets, x, y))
        # argmax takes the first of equals: the smallest change
        settings |= {target: choices[np.argmax([each[target] for each in scores])] for target in corpus.targets}
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


def score(corpus: Corpus, prediction: np.ndarray) -> dict:
    """Agreement of a prediction (F, targets) with the corpus's labels, over its annotated frames.

    ccc, pearson, rmse: {target: …, "mean": …} over the concatenation of all videos (the challenge's definition);
    ccc_per_video: the mean over videos of each one's own CCC; per_video: {id: {"frames", target: CCC …}}. Where labels
    have a clock of their own, "frames" counts their rows. Raises AffuseError when no frame is annotated.
    """
    return {**score_pairs(pairs(corpus, prediction), corpus.targets), "left_out": dict(corpus.left_out)}


def unexplained(corpus: Corpus, estimate: Estimate) -> np.ndarray:
    """Of each target the mean square error (targets,) that the estimate's own variance does not account for."""
    error, own = _errors(corpus, estimate)
    return (np.square(error) - np.square(own)).mean(axis=0).clip(min=0)


def within(corpus: Corpus, estimate: Estimate) -> dict:
    """{"band": share of the truth that is to be in it, "within": {target: share that is, "mean": …}}"""
    error, own = _errors(corpus, estimate)
    return {
        "band": BAND,
        "within": each_target(lambda e, d: float((abs(e) <= REACH * d).mean()), corpus.targets, error, own),
    }


def _errors(corpus: Corpus, estimate: Estimate) -> tuple[np.ndarray, np.ndarray]:
    """Error and deviation (n, targets) of all annotated rows; 0 where the estimate has no deviation."""
    deviation = np.zeros_like(estimate.values) if estimate.deviation is None else estimate.deviation
    (x, y), (_, own) = (
        (np.concatenate(side) for side in zip(*pairs(corpus, part).values(), strict=True))
        for part in (estimate.values, deviation)
    )
    return x - y, own


def pairs(corpus: Corpus, prediction: np.ndarray) -> Pairs:
    """Truth and prediction, each (n, targets) float64, of every video on its own annotated rows: its frames, or the
    rows of labels that have a clock of their own. Videos without such a row are not there."""
    found = {}
    for video, name in enumerate(corpus.videos):
        own, predicted = corpus.own(video), corpus.on_own(video, prediction)
        if name in corpus.timed:
            x, y = on_rows(corpus.timed[name], corpus.targets, own.time, predicted)
        else:
            x, y = (side[own.annotated].astype(np.float64) for side in (own.truth, predicted))
        if len(x):
            found[name] = x, y
    return found


def score_pairs(pairs: Pairs, targets: list[str]) -> dict:
    """What `score` gives, but for "left_out", of truth and prediction already brought together."""
    if not pairs:
        raise AffuseError("None of the frames to score is annotated: every label row is -5, or there is none.")
    x, y = (np.concatenate(side) for side in zip(*pairs.values(), strict=True))
    own = {video: each_target(ccc, targets, *pair) for video, pair in pairs.items()}
    return {
        "videos": len(pairs),
        "frames": len(x),
        **{name: each_target(metric, targets, x, y) for name, metric in METRICS.items()},
        "ccc_per_video": {key: float(np.mean([each[key] for each in own.values()])) for key in (*targets, "mean")},
        "per_video": {video: {"frames": len(pairs[video][0]), **each} for video, each in own.items()},
    }


def judge(pairs: Pairs, targets: list[str], permutations: int = 0) -> dict:
    """What `score_pairs` gives, with "interval" (95 %, made as "interval_method" says) and "chance" (of so many
    swapped predictions; none for 0). A single video has neither."""
    return {
        **score_pairs(pairs, targets),
        "interval": bootstrap(pairs, targets),
        "interval_method": OF_SCORES,
        "chance": permuted(pairs, targets, permutations) if permutations else {},
    }
