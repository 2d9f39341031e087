"""What training minimises, by name. Each takes prediction and truth (B, L, targets) and valid (B, L) bool, the frames
that count, and gives a scalar, 0 where no frame does; it is computed in float32 at least, also under autocast.

ccc        1 − ρ_c of each window, averaged: the releases' loss. Asks each window for its own movement, which slow
           ratings hardly have
ccc-batch  1 − ρ_c over all frames of the batch together, averaged over targets
mse        the mean square error
ccc+mse    ccc-batch and mse together
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from affuse.fuse.scoring.metrics import ccc_loss


def over_batch(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    return ccc_loss(prediction.flatten(0, 1)[None], truth.flatten(0, 1)[None], valid.flatten()[None])


def square_error(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    with torch.autocast(prediction.device.type, enabled=False):
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        error = torch.where(valid[..., None], prediction.to(dtype) - truth.to(dtype), 0)
        return error.square().sum() / (valid.sum() * prediction.shape[-1]).clamp(min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ccc": ccc_loss,
    "ccc-batch": over_batch,
    "mse": square_error,
    "ccc+mse": lambda *given: over_batch(*given) + square_error(*given),
}
