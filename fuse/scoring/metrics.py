"""Agreement of a prediction with its truth: the concordance correlation coefficient, as metric and as loss.

    ρ_c = 2 cov(x, y) / (var x + var y + (mean x − mean y)²)        (Lin, 1989)

Covariance and variances are all divided by the same N, so a perfect prediction scores exactly 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

EPSILON = (
    1e-8  # survives float32, where 1e-50 is zero; small beside the variance of a window that moves at all
)


def ccc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """CCC of two series (N,), in float64. 0 where either is constant; NaN only for N = 0."""
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if not x.size:
        return float("nan")
    if _constant(x) or _constant(y):
        return 0.0
    dx, dy = x - x.mean(), y - y.mean()
    spread = (dx * dx).mean() + (dy * dy).mean() + (x.mean() - y.mean()) ** 2
    return float(2 * (dx * dy).mean() / spread)


def pearson(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Pearson's r of two series (N,), in float64. 0 where either is constant; NaN only for N = 0."""
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if not x.size:
        return float("nan")
    if _constant(x) or _constant(y):
        return 0.0
    dx, dy = x - x.mean(), y - y.mean()
    return float((dx * dy).mean() / np.sqrt((dx * dx).mean() * (dy * dy).mean()))


def _constant(x: np.ndarray) -> bool:
    """Asked of the values, since rounding may leave a constant's computed variance above 0."""
    return bool(x.min() == x.max())


def rmse(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Root mean square error of two series (N,), in the labels' own unit."""
    difference = np.asarray(truth, np.float64) - np.asarray(prediction, np.float64)
    return float(np.sqrt((difference * difference).mean())) if difference.size else float("nan")


def ccc_loss(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """1 − CCC of each window over its valid frames, averaged over windows and targets; a scalar.

    prediction, truth (B, L, targets); valid (B, L) bool. Computed in float32 at least, also under autocast. A
    window with fewer than 2 valid frames has no loss; with none at all the result is 0.
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
        spread = ((dx * dx).sum(1) + (dy * dy).sum(1)) / n + (mean_x - mean_y) ** 2
        concordance = 2 * covariance / (spread + EPSILON)
        usable = (frames >= 2).expand_as(concordance)
        return torch.where(usable, 1 - concordance, 0).sum() / usable.sum().clamp(min=1)


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


Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # of each video: truth, prediction (n, targets)

DRAWS = 2000
LEVEL = 0.95
PERMUTATIONS = 100


def _fisher(r: np.ndarray) -> np.ndarray:
    return np.arctanh(r.clip(-1 + 1e-12, 1 - 1e-12))


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(x.clip(min=1e-12))


SCALES = {"ccc": (_fisher, np.tanh), "pearson": (_fisher, np.tanh), "rmse": (_log, np.exp)}


def bootstrap(
    pairs: Pairs, targets: list[str], draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> dict:
    """Intervals of the scores on the concatenation, from `draws` draws of as many videos with return.

    {"ccc" | "pearson" | "rmse": {target | "mean": [low, high]}}; nothing for fewer than two videos. The spread of the
    draws is taken on a scale where it is even, Fisher's z of CCC and r (Lin 1989, sec. 3) and the logarithm of RMSE,
    and widened by Student's t for V − 1 degrees: plain percentiles cover 86 % at ten
    videos. Of 95 %, this covers about 90 at a dozen videos and 93 to 94 from two dozen on.
    (Efron & Tibshirani 1993, ch. 12 and 13, with videos as the units.)
    """
    videos = len(pairs)
    if videos < 2:
        return {}
    sums = _sums(pairs)  # (V, 6, targets)
    weights = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=draws)
    drawn = _scores(np.tensordot(weights.astype(np.float64), sums, axes=1))
    observed = _scores(sums.sum(axis=0, keepdims=True))
    reach = stdtrit(videos - 1, (1 + level) / 2) * np.sqrt(videos / (videos - 1))
    intervals = {}
    for metric, (there, back) in SCALES.items():
        values, centre = (
            there(np.column_stack([part[metric], part[metric].mean(axis=1)])) for part in (drawn, observed)
        )  # (draws, targets + 1), (1, targets + 1)
        half = reach * values.std(axis=0, ddof=1)
        low, high = back(centre[0] - half), back(centre[0] + half)
        intervals[metric] = {
            name: [float(low[i]), float(high[i])] for i, name in enumerate((*targets, "mean"))
        }
    return intervals


def _sums(pairs: Pairs) -> np.ndarray:
    """`moments` of each video (V, 6, targets), about the centre of all truth, for precision."""
    centre = np.concatenate([x for x, _ in pairs.values()]).mean(axis=0)
    return np.stack([moments(x - centre, y - centre) for x, y in pairs.values()])


def _scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """ccc, pearson, rmse (draws, targets) from sums (draws, 6, targets); 0 where a series is constant."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, 1, 0)
    mean_x, mean_y = x / n, y / n
    var_x, var_y = (xx / n - mean_x**2).clip(min=0), (yy / n - mean_y**2).clip(min=0)
    covariance = xy / n - mean_x * mean_y
    spread, product = var_x + var_y + (mean_x - mean_y) ** 2, np.sqrt(var_x * var_y)
    return {
        "ccc": np.divide(2 * covariance, spread, out=np.zeros_like(spread), where=spread > 0),
        "pearson": np.divide(covariance, product, out=np.zeros_like(product), where=product > 0),
        "rmse": np.sqrt(((xx - 2 * xy + yy) / n).clip(min=0)),
    }


def permuted(pairs: Pairs, targets: list[str], times: int = PERMUTATIONS, seed: int = 0) -> dict:
    """What predictions of the same shape that know nothing of the video would score: CCC on the concatenation.

    Each time every video gets the prediction of a randomly drawn other (each is given away once), stretched to its
    length and turned by a random part of it. {target | "mean": {"mean", "high" (95th percentile), "p"}}, p being
    the share of permutations, with the real order as one of them, that score at least as well as the real order.
    """
    rng = np.random.default_rng(seed)
    truth = [x for x, _ in pairs.values()]
    predictions = [y for _, y in pairs.values()]
    whole = np.concatenate(truth)
    observed = _each_target(whole, np.concatenate(predictions))
    scores = []
    for _ in range(times):
        order = rng.permutation(len(truth))
        swapped = [
            np.roll(_stretched(predictions[other], len(x)), rng.integers(len(x)), axis=0)
            for other, x in zip(order, truth, strict=True)
        ]
        scores.append(_each_target(whole, np.concatenate(swapped)))
    drawn = np.array(scores)  # (times, targets + 1)
    return {
        name: {
            "mean": float(drawn[:, i].mean()),
            "high": float(np.percentile(drawn[:, i], 95)),
            "p": float((1 + (drawn[:, i] >= observed[i]).sum()) / (1 + times)),
        }
        for i, name in enumerate((*targets, "mean"))
    }


def _each_target(x: np.ndarray, y: np.ndarray) -> list[float]:
    values = [ccc(x[:, k], y[:, k]) for k in range(x.shape[1])]
    return [*values, float(np.mean(values))]


def _stretched(y: np.ndarray, rows: int) -> np.ndarray:
    """(n, targets) at `rows` evenly spaced places, by the nearest row."""
    return y[np.linspace(0, len(y) - 1, rows).round().astype(np.int64)]
