"""What every model is made with: masks, batch statistics under them, dropout, and how a layer starts.

A mask says which frames of which modality count, and how the others are kept out.

A frame of modality m is valid when it is neither padding nor missing. Everywhere in `fuse`, `valid` is None
(every frame counts) or a dictionary modality → (batch, time) bool. An invalid frame

  - enters its temporal encoder as zeros, whatever it held (NaN included);
  - takes no part in the statistics of a BatchNorm;
  - is zero in X_m before every recursion, and zero in the joint J when no member of J is valid there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Valid = dict[str, Tensor] | None
LEVELS = 2**16  # of the draws that dropout compares with


def zero_invalid(x: Tensor, valid: Tensor | None) -> Tensor:
    """x (batch, time, width) with the frames outside valid (batch, time) set to zero, NaN included."""
    return x if valid is None else x.masked_fill(~valid[..., None], 0)


def at_least_single(x: Tensor) -> Tensor:
    """x in float32, where it is not more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def frames(valid: Valid, m: str) -> Tensor | None:
    """The frames of modality m that count; None when every frame does."""
    return None if valid is None else valid[m]


def unless_full(valid: dict[str, Tensor]) -> Valid:
    """None for masks that exclude nothing: the same results, sooner.

    Asked on a CPU only; on an accelerator the question would cost a wait for the device.
    """
    cpu = all(v.device.type == "cpu" for v in valid.values())
    return None if cpu and all(bool(v.all()) for v in valid.values()) else valid


def any_valid(valid: Valid, modalities) -> Tensor | None:
    """(batch, time) bool: at least one of `modalities` is valid there. None when every frame counts."""
    if valid is None:
        return None
    return torch.stack([valid[m] for m in modalities]).any(0)


def drop_modalities(valid: dict[str, Tensor], probability: float) -> dict[str, Tensor]:
    """Drop whole modalities of each sample at random, never the last one a sample has.

    Each present modality goes with `probability`, independently; a sample that would lose all of them keeps
    one of its own, drawn evenly.
    """
    modalities = list(valid)
    present = torch.stack([valid[m].any(1) for m in modalities], 1)  # (batch, modalities)
    keep = present & (torch.rand(present.shape, device=present.device) >= probability)
    draw = torch.rand(present.shape, device=present.device).masked_fill(~present, -1)
    spared = F.one_hot(draw.argmax(1), len(modalities)).bool()
    keep = torch.where(keep.any(1, keepdim=True), keep, spared)
    return {m: valid[m] & keep[:, i, None] for i, m in enumerate(modalities)}


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d over the channels of (batch, time, width), its statistics taken over the valid frames only.

    With every frame valid it is torch's own. The state dictionary is that of nn.BatchNorm1d.
    """

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is None or not self.training:
            return super().forward(x.flatten(0, 1)).view_as(x)
        y = x if x.dtype == torch.float64 else x.float()  # statistics in bfloat16 would be worthless
        count = valid.sum()
        n = count.clamp(min=1)
        mean = zero_invalid(y, valid).sum((0, 1)) / n
        centred = y - mean
        variance = zero_invalid(centred, valid).square().sum((0, 1)) / n
        self._track(mean.detach(), variance.detach(), count)
        return (centred * (self.weight * torch.rsqrt(variance + self.eps)) + self.bias).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Running statistics as torch keeps them (unbiased variance); no valid frame, no change."""
        step = self.momentum * (count > 0)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean += step * (mean - self.running_mean)
        self.running_var += step * (unbiased - self.running_var)
        self.num_batches_tracked += count > 0


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """x with every element zeroed with probability p, the others scaled up to keep the mean.

    On a CPU p is rounded to a multiple of 2^-16 and the scale follows it. The draws come from torch's generator.
    """
    if not training or not p:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = torch.ge(draws, dropped - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
    return x * keep.mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """nn.Dropout through `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


Start = Callable[[nn.Linear], nn.Linear]  # draws the weights that a layer starts from


def xavier(linear: nn.Linear) -> nn.Linear:
    """Xavier-uniform weight, zero bias."""
    nn.init.xavier_uniform_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def default(linear: nn.Linear) -> nn.Linear:
    """Torch's own: weight and bias uniform within ±1/√(width of the input)."""
    return linear
