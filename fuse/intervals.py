"""How sure a score is, and what chance alone would give: a bootstrap over videos, and predictions that are swapped.

Frames of a video resemble each other, so videos are what is drawn, not frames. All three metrics follow from sums
over each video, so a draw costs one weighted sum of a few numbers per video.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from fuse.bootstrap import moments
from fuse.ccc import ccc

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
