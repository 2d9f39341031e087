"""What training minimises, by name. Each takes prediction and truth (B, L, targets) and valid (B, L) bool, the frames
that count, and gives a scalar, 0 where no frame does; it is computed in float32 at least, also under autocast.
gaussian takes predictions (B, L, 2 · targets), of a model with deviations.

ccc        1 − ρ_c of each window, averaged: the releases' loss. Asks each window for its own movement, which slow
           ratings hardly have
ccc-batch  1 − ρ_c over all frames of the batch together, averaged over targets
mse        the mean square error
ccc+mse    ccc-batch and mse together
gaussian   the negative logarithm of a normal density whose mean and standard deviation are predicted (Nix & Weigend
           1994, eq. 4), so that a prediction says how sure it is
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from affuse.fuse.models.layers import at_least_single
from affuse.fuse.scoring.metrics import ccc_loss


def over_batch(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    return ccc_loss(prediction.flatten(0, 1)[None], truth.flatten(0, 1)[None], valid.flatten()[None])


def square_error(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    return _mean((at_least_single(prediction) - at_least_single(truth)).square(), valid)


def surprise(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    mean, deviation = at_least_single(prediction).chunk(2, -1)
    return _mean(deviation.log() + ((at_least_single(truth) - mean) / deviation).square() / 2, valid)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Of (B, L, targets), over the frames that count."""
    return torch.where(valid[..., None], values, 0).sum() / (valid.sum() * values.shape[-1]).clamp(min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ccc": ccc_loss,
    "ccc-batch": over_batch,
    "mse": square_error,
    "ccc+mse": lambda *given: over_batch(*given) + square_error(*given),
    "gaussian": surprise,
}
