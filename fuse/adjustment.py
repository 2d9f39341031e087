"""What may be done to predictions after the model, each by name and fitted on training videos only: a moving mean,
and a shift that makes up for the raters' reaction time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from features.errors import UsageError
from fuse.ccc import ccc
from fuse.data import Corpus
from fuse.intervals import Pairs

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
