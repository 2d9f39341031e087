"""How sure a difference in CCC is: a paired bootstrap over videos, the unit that was drawn when the data were
collected (frames of one video resemble each other, so resampling frames would flatter).

CCC over a concatenation depends on each video only through six sums, so a resample is a weighted sum of them and
no frame is touched twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


def moments(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(6, targets) float64: N, Σx, Σy, Σx², Σy², Σxy of one video's truth x and prediction y, both (N, targets).

    Values of the order of 1, as labels in [−1, 1] are, lose nothing to the sums of squares.
    """
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    count = np.full(x.shape[1], float(len(x)))
    return np.stack([count, x.sum(0), y.sum(0), (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)])


def ccc_of_moments(sums: np.ndarray) -> np.ndarray:
    """CCC from summed moments (…, 6, targets) → (…, targets). 0 where truth or prediction is constant."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -2, 0)
    mean_x, mean_y = x / n, y / n
    var_x, var_y = xx / n - mean_x**2, yy / n - mean_y**2
    constant = (var_x < 1e-12) | (var_y < 1e-12)  # what rounding leaves of a variance of 0
    spread = np.where(constant, 1, var_x + var_y + (mean_x - mean_y) ** 2)
    return np.where(constant, 0, 2 * (xy / n - mean_x * mean_y) / spread)


@dataclass(frozen=True)
class Difference:
    """CCC of one model less that of another: on the videos as they are, the interval, and the share of resamples
    above 0. Each is (targets + 1,), the mean over targets last; interval and share are NaN for fewer than 2
    videos."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    above_zero: np.ndarray


def paired_bootstrap(
    one: np.ndarray, other: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """The difference in CCC between two models over the concatenation of videos, by percentile bootstrap.

    one, other (seeds, videos, 6, targets): `moments` of every run on the same videos in the same order. A resample
    draws as many videos as there are, with replacement, the same for both models and all seeds; a model's CCC is
    the mean over its seeds, so the interval says what another draw of videos would change, not another seed.
    """
    one, other = (np.asarray(m, np.float64) for m in (one, other))
    videos = one.shape[1]
    value = _with_mean(_seed_mean(one.sum(1)) - _seed_mean(other.sum(1)))
    if videos < 2:
        unknown = np.full_like(value, np.nan)
        return Difference(value, unknown, unknown, unknown)
    drawn = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), resamples)
    ccc_one, ccc_other = (_seed_mean(np.einsum("rv,svmt->srmt", drawn, m)) for m in (one, other))
    differences = _with_mean(ccc_one - ccc_other)  # (resamples, targets + 1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(differences, [tail, 1 - tail], axis=0)
    return Difference(value, low, high, (differences > 0).mean(0))


def _seed_mean(sums: np.ndarray) -> np.ndarray:
    return ccc_of_moments(sums).mean(0)


def _with_mean(values: np.ndarray) -> np.ndarray:
    """(…, targets) → (…, targets + 1)."""
    return np.concatenate([values, values.mean(-1, keepdims=True)], -1)
