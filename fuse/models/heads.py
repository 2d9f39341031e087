"""From fused features to valence and arousal, frame by frame: one head whose parts a specification picks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from affuse.fuse.models.layers import Dropout, MaskedBatchNorm1d
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class HeadSpec:
    """Linear(width, hidden) → norm → activation → dropout → Linear(hidden, targets) → tanh, each optional."""

    hidden: int | None = None  # None: one Linear only
    norm: bool = False  # BatchNorm1d over the hidden channels
    activation: str | None = None  # 'relu' | 'leaky_relu'
    dropout: float = 0.0
    per_target: bool = False  # a head of its own for every target
    tanh: bool = False  # outputs within (−1, 1)


class Head(nn.Module):
    """(batch, time, width) → (batch, time, targets)."""

    def __init__(self, width: int, targets: int, spec: HeadSpec, dropout: float):
        super().__init__()
        self.spec = spec
        copies, outputs = (targets, 1) if spec.per_target else (1, targets)
        hidden = spec.hidden or width
        self.inner = nn.ModuleList(nn.Linear(width, hidden) for _ in range(copies if spec.hidden else 0))
        self.norm = MaskedBatchNorm1d(hidden) if spec.norm else None
        self.outer = nn.ModuleList(nn.Linear(hidden, outputs) for _ in range(copies))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """valid (batch, time): frames with at least one valid modality; only they count in the BatchNorm."""
        y = torch.cat([self._one(i, x, valid) for i in range(len(self.outer))], -1)
        return torch.tanh(y) if self.spec.tanh else y

    def _one(self, i: int, x: Tensor, valid: Tensor | None) -> Tensor:
        if len(self.inner):
            x = self.inner[i](x)
            if self.norm is not None:
                x = self.norm(x, valid)
            if self.spec.activation:
                x = getattr(F, self.spec.activation)(x)
            x = self.dropout(x)
        return self.outer[i](x)
