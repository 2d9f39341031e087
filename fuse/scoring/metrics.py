"""Agreement of a prediction with its truth: CCC, Pearson's r and RMSE, how sure they are, and what chance gives.

    ρ_c = 2 cov(x, y) / (var x + var y + (mean x − mean y)²)        (Lin, 1989)

Covariance and variances are all divided by the same N, so a perfect prediction scores exactly 1. Where truth or
prediction is constant, ρ_c and r are 0: a constant carries nothing that one could agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

EPSILON = 1e-8  # of the loss: survives float32, and is small beside the variance of a window that moves at all
ROUNDING = 1e-12  # of the mean square: what rounding leaves at most of a variance of 0
RESAMPLES = 2000
LEVEL = 0.95
PERMUTATIONS = 100
INTERVAL = f"{LEVEL:.0%} by Student's t from {RESAMPLES} resamples of the videos"
OF_SCORES = f"{INTERVAL}, on Fisher's z (RMSE: its logarithm)"
OF_DIFFERENCES = f"{INTERVAL}, on the plain scale"

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # of each video: truth, prediction (n, targets)


def concordance(covariance, variances, offset, floor=0.0):
    """ρ_c, element by element, of arrays and of tensors; variances is var x + var y, floor keeps it from 0 / 0."""
    return 2 * covariance / (variances + offset**2 + floor)


def _agreement(covariance, var_x, var_y, offset) -> np.ndarray:
    """ρ_c and Pearson's r, each element by element; a constant has a variance of exactly 0."""
    constant = (var_x == 0) | (var_y == 0)
    rho = concordance(covariance, np.where(constant, 1, var_x + var_y), offset)
    return np.where(constant, 0, [rho, covariance / np.where(constant, 1, np.sqrt(var_x * var_y))])


def ccc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """CCC of two series (N,), in float64. 0 where either is constant; NaN only for N = 0."""
    return float(_of_series(truth, prediction)[0])


def pearson(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Pearson's r of two series (N,), in float64. 0 where either is constant; NaN only for N = 0."""
    return float(_of_series(truth, prediction)[1])


def rmse(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Root mean square error of two series (N,), in the labels' own unit."""
    difference = np.asarray(truth, np.float64) - np.asarray(prediction, np.float64)
    return float(np.sqrt((difference * difference).mean())) if difference.size else float("nan")


METRICS = {"ccc": ccc, "pearson": pearson, "rmse": rmse}


def _of_series(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if not x.size:
        return np.full(2, np.nan)
    dx, dy = x - x.mean(), y - y.mean()
    # Constancy is asked of the values, since rounding may leave a constant's computed variance above 0.
    var_x, var_y = ((d * d).mean() * (z.min() != z.max()) for z, d in ((x, dx), (y, dy)))
    return _agreement((dx * dy).mean(), var_x, var_y, x.mean() - y.mean())


def each_target(metric: Callable, targets: Iterable[str], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """A metric of every column of x and y (N, targets) by target, and "mean", the mean of them."""
    values = {target: metric(x[:, k], y[:, k]) for k, target in enumerate(targets)}
    return {**values, "mean": float(np.mean(list(values.values())))}


def ccc_loss(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """1 − ρ_c of each window over its valid frames, averaged over windows and targets; a scalar.

    prediction, truth (B, L, targets); valid (B, L) bool. Computed in float32 at least, also under autocast. A
    window with fewer than 2 valid frames has no loss; with none at all the result is 0. EPSILON stands in for the
    rule on constants: it makes their ρ_c 0 and leaves a gradient to get away from there.

    One N divides all. The releases divide the covariance by N and the variances by N − 1, where a perfect window costs
    1/N: 3e-3 at 300 frames.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        keep = valid[..., None]
        x = torch.where(keep, truth.to(dtype), 0)
        y = torch.where(keep, prediction.to(dtype), 0)
        frames = keep.sum(1)  # (B, 1)
        n = frames.clamp(min=1)
        mean_x, mean_y = x.sum(1) / n, y.sum(1) / n  # (B, targets)
        dx = torch.where(keep, x - mean_x[:, None], 0)
        dy = torch.where(keep, y - mean_y[:, None], 0)
        covariance = (dx * dy).sum(1) / n
        variances = ((dx * dx).sum(1) + (dy * dy).sum(1)) / n
        rho = concordance(covariance, variances, mean_x - mean_y, EPSILON)
        usable = (frames >= 2).expand_as(rho)
        return torch.where(usable, 1 - rho, 0).sum() / usable.sum().clamp(min=1)


# ---- sums: a concatenation's scores without the concatenation


def moments(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(6, targets) float64: N, Σx, Σy, Σx², Σy², Σxy of one video's truth x and prediction y, both (N, targets).

    Values of the order of 1, as labels in [−1, 1] are, lose nothing to the sums of squares.
    """
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    count = np.full(x.shape[1], float(len(x)))
    return np.stack([count, x.sum(0), y.sum(0), (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)])


def scores_of_moments(sums: np.ndarray) -> dict[str, np.ndarray]:
    """ccc, pearson and rmse, each (…, targets), from summed moments (…, 6, targets)."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -2, 0)
    mean_x, mean_y = x / n, y / n
    var_x, var_y = (
        np.where(square - mean**2 > ROUNDING * square, square - mean**2, 0)
        for square, mean in ((xx / n, mean_x), (yy / n, mean_y))
    )
    rho, r = _agreement(xy / n - mean_x * mean_y, var_x, var_y, mean_x - mean_y)
    return {"ccc": rho, "pearson": r, "rmse": np.sqrt(((xx - 2 * xy + yy) / n).clip(min=0))}


def ccc_of_moments(sums: np.ndarray) -> np.ndarray:
    """CCC from summed moments (…, 6, targets) → (…, targets). 0 where truth or prediction is constant."""
    return scores_of_moments(sums)["ccc"]


# ---- intervals: what another draw of videos would change


def students_t(drawn: np.ndarray, observed: np.ndarray, videos: int) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of what was observed, given what resamples came to (resamples, …).

    Student's t for V − 1 degrees times the spread of the resamples, widened by √(V / (V − 1)), since resamples spread
    by so much less than new videos would (Efron & Tibshirani 1993, ch. 12 and 13, with videos as the units). Scores
    come on a scale where their spread is even; differences of scores have none and need none. Of 95 %, this covers
    some 90 for scores at a dozen videos, 93 from two dozen on, and 94 for differences throughout.
    """
    reach = stdtrit(videos - 1, (1 + LEVEL) / 2) * np.sqrt(videos / (videos - 1))
    half = reach * drawn.std(axis=0, ddof=1)
    return observed - half, observed + half


def _fisher(r: np.ndarray) -> np.ndarray:
    return np.arctanh(r.clip(-1 + 1e-12, 1 - 1e-12))


SCALES = {
    "ccc": (_fisher, np.tanh),
    "pearson": (_fisher, np.tanh),
    "rmse": (lambda error: np.log(error.clip(min=1e-12)), np.exp),
}


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums (…, V, 6, targets) of as many videos drawn with return: (…, resamples, 6, targets)."""
    videos = sums.shape[-3]
    drawn = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), resamples)
    return np.einsum("rv,...vmt->...rmt", drawn, sums)


def bootstrap(pairs: Pairs, targets: list[str], resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """Intervals of the scores on the concatenation, from `resamples` draws of as many videos with return.

    {"ccc" | "pearson" | "rmse": {target | "mean": [low, high]}}; nothing for fewer than two videos.
    """
    videos = len(pairs)
    if videos < 2:
        return {}
    sums = _sums(pairs)
    drawn, observed = scores_of_moments(_resampled(sums, resamples, seed)), scores_of_moments(sums.sum(0))
    intervals = {}
    for metric, (there, back) in SCALES.items():
        low, high = students_t(there(_with_mean(drawn[metric])), there(_with_mean(observed[metric])), videos)
        ends = np.stack([back(low), back(high)], axis=1).tolist()
        intervals[metric] = dict(zip((*targets, "mean"), ends, strict=True))
    return intervals


def _sums(pairs: Pairs) -> np.ndarray:
    """`moments` of each video (V, 6, targets), about the centre of all truth, for precision."""
    centre = np.concatenate([x for x, _ in pairs.values()]).mean(axis=0)
    return np.stack([moments(x - centre, y - centre) for x, y in pairs.values()])


class Difference(NamedTuple):
    """CCC of one model less that of another: on the videos as they are, the interval, and the share of resamples above
    0. Each is (targets + 1,), the mean over targets last; interval and share are NaN for fewer than 2 videos."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    above_zero: np.ndarray


def paired_bootstrap(one: np.ndarray, other: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """The difference in CCC between two models over the concatenation of videos.

    one, other (seeds, videos, 6, targets): `moments` of every run on the same videos in the same order. A resample
    draws as many videos as there are, with replacement, the same for both models and all seeds; a model's CCC is
    the mean over its seeds, so the interval says what another draw of videos would change, not another seed.
    """
    one, other = (np.asarray(m, np.float64) for m in (one, other))
    videos = one.shape[1]
    value = _with_mean(ccc_of_moments(one.sum(1)).mean(0) - ccc_of_moments(other.sum(1)).mean(0))
    if videos < 2:
        unknown = np.full_like(value, np.nan)
        return Difference(value, unknown, unknown, unknown)
    drawn = (ccc_of_moments(_resampled(m, resamples, seed)).mean(0) for m in (one, other))
    differences = _with_mean(np.subtract(*drawn))  # (resamples, targets + 1)
    return Difference(value, *students_t(differences, value, videos), (differences > 0).mean(0))


def _with_mean(values: np.ndarray) -> np.ndarray:
    """(…, targets) → (…, targets + 1)."""
    return np.concatenate([values, values.mean(-1, keepdims=True)], -1)


# ---- chance


def permuted(pairs: Pairs, targets: list[str], times: int = PERMUTATIONS, seed: int = 0) -> dict:
    """What predictions of the same shape that know nothing of the video would score: CCC on the concatenation.

    Each time every video gets the prediction of a randomly drawn other (each is given away once), stretched to its
    length and turned by a random part of it. {target | "mean": {"mean", "high" (95th percentile), "p"}}, p being
    the share of permutations, with the real order as one of them, that score at least as well as the real order;
    nothing for fewer than two videos.
    """
    if len(pairs) < 2:
        return {}
    rng = np.random.default_rng(seed)
    truth, predictions = zip(*pairs.values(), strict=True)
    whole = np.concatenate(truth)
    scores = []
    for _ in range(times):
        order = rng.permutation(len(truth))
        swapped = [
            np.roll(_stretched(predictions[other], len(x)), rng.integers(len(x)), axis=0)
            for other, x in zip(order, truth, strict=True)
        ]
        scores.append(each_target(ccc, targets, whole, np.concatenate(swapped)))
    chance = {}
    for name, observed in each_target(ccc, targets, whole, np.concatenate(predictions)).items():
        drawn = np.array([score[name] for score in scores])
        p = float((1 + (drawn >= observed).sum()) / (1 + times))
        chance[name] = {"mean": float(drawn.mean()), "high": float(np.percentile(drawn, 95)), "p": p}
    return chance


def _stretched(y: np.ndarray, rows: int) -> np.ndarray:
    """(n, targets) at `rows` evenly spaced places, by the nearest row."""
    return y[np.linspace(0, len(y) - 1, rows).round().astype(np.int64)]
