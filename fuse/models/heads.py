"""From attended modalities to valence and arousal, frame by frame: how the modalities are joined, and the head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from affuse.fuse.models.encoders import BiLSTM
from affuse.fuse.models.layers import Dropout, MaskedBatchNorm1d, Start, Valid, any_valid, default


class Concatenation(nn.Module):
    """{m: (batch, time, d_m)} → (batch, time, Σ d_m)."""

    def __init__(self, widths: dict[str, int], dropout: float):
        super().__init__()
        self.width = sum(widths.values())

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> Tensor:
        return torch.cat(list(x.values()), -1)


class ConcatenationBiLSTM(BiLSTM):
    """A BiLSTM over the concatenation, as wide as the first modality (RJCA, DCA)."""

    def __init__(self, widths: dict[str, int], dropout: float):
        super().__init__(sum(widths.values()), list(widths.values())[:1], dropout)

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> Tensor:
        return super().forward(torch.cat(list(x.values()), -1), any_valid(valid, x))


class TrailingMean(nn.Module):
    """{m: (batch, time, d_m)} → (batch, time, Σ d_m): each modality's mean over the last `frames` frames, of those of
    them that are valid; zero where none is. One frame: the concatenation."""

    def __init__(self, widths: dict[str, int], dropout: float):
        super().__init__()
        self.width = sum(widths.values())
        self.register_buffer("frames", torch.tensor(1))

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> Tensor:
        last, means = int(self.frames), []
        for m, v in x.items():
            there = torch.ones_like(v[..., :1]) if valid is None else valid[m][..., None]
            means.append((_sums(v, last) / _sums(there, last).clamp(min=1)).to(v.dtype))
        return torch.cat(means, -1)


def _sums(x: Tensor, last: int) -> Tensor:
    """The sum over the last frames at every frame of (batch, time, width), as a difference of sums from the start,
    which is why in float64."""
    total = x.cumsum(1, dtype=torch.float64)
    return torch.cat([total[:, :last], total[:, last:] - total[:, :-last]], 1)


class EvenShares(nn.Module):
    """{m: (batch, time, d_m)} → (batch, time, Σ d_m), divided by the number of columns that are valid at the frame."""

    def __init__(self, widths: dict[str, int], dropout: float):
        super().__init__()
        self.width = sum(widths.values())

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> Tensor:
        joined = torch.cat(list(x.values()), -1)
        if valid is None:
            return joined / self.width
        return joined / sum(valid[m][..., None] * v.shape[-1] for m, v in x.items()).clamp(min=1)


class SumOfShares(nn.Module):
    """(batch, time, k targets) → (batch, time, targets): what `EvenShares` makes of the targets in order, k times."""

    def __init__(self, width: int, targets: int, dropout: float):
        super().__init__()
        self.targets = targets

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.targets * x.unflatten(-1, (-1, self.targets)).sum(-2)


class Head(nn.Module):
    """(batch, time, width) → (batch, time, targets): Linear → norm → activation → dropout → Linear → tanh.

    hidden      width between the two Linears; None: the last one only
    norm        BatchNorm1d over the hidden channels
    per_target  a head of its own for every target
    tanh        outputs within (−1, 1)
    start       of the weights
    """

    def __init__(
        self,
        width: int,
        targets: int,
        dropout: float,
        hidden: int | None = None,
        norm: bool = False,
        activation: Callable[[Tensor], Tensor] | None = None,
        per_target: bool = False,
        tanh: bool = False,
        start: Start = default,
    ):
        super().__init__()
        copies, outputs = (targets, 1) if per_target else (1, targets)
        self.inner = nn.ModuleList(start(nn.Linear(width, hidden)) for _ in range(copies if hidden else 0))
        self.norm = MaskedBatchNorm1d(hidden) if norm else None
        self.outer = nn.ModuleList(start(nn.Linear(hidden or width, outputs)) for _ in range(copies))
        self.dropout = Dropout(dropout) if hidden else None
        self.activation, self.tanh = activation, tanh

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """valid (batch, time): frames with at least one valid modality; only they count in the BatchNorm."""
        y = torch.cat([self._one(i, x, valid) for i in range(len(self.outer))], -1)
        return torch.tanh(y) if self.tanh else y

    def _one(self, i: int, x: Tensor, valid: Tensor | None) -> Tensor:
        if len(self.inner):
            x = self.inner[i](x)
            x = x if self.norm is None else self.norm(x, valid)
            x = self.dropout(self.activation(x) if self.activation else x)
        return self.outer[i](x)
