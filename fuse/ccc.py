"""Agreement of a prediction with its truth: the concordance correlation coefficient, as metric and as loss.

    ρ_c = 2 cov(x, y) / (var x + var y + (mean x − mean y)²)        (Lin, 1989)

Covariance and variances are all divided by the same N, so a perfect prediction scores exactly 1.
"""

from __future__ import annotations

import numpy as np
import torch
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
