"""The two one-pass ancestors of the recursive family, each a block of its own: JCA and CA."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuse.attention import xavier
from fuse.masks import Valid, zero_invalid

JCA_WIDTH = 32  # k, the inner width of JCA's H


class OnePassJointAttention(nn.Module):
    """JCA: {m: (batch, time, d_m)} → the same shapes, through H of width k = 32. No biases.

    Praveen et al., "A Joint Cross-Attention Model for Audio-Visual Fusion in Dimensional Emotion
    Recognition", CVPRW 2022 (arXiv 2203.14779), and its release. (That release concatenates the raw with the
    attended video before its head, by mistake; here both attended modalities are, as printed.)
    W_jm (L × L), W_m (L × k) and W_hm (k × L) run over time.
    """

    def __init__(self, widths: dict[str, int], window: int):
        super().__init__()
        joint = sum(widths.values())
        layers = {"W_j": (window, window), "W_m": (window, JCA_WIDTH), "W_c": (joint, JCA_WIDTH)}
        layers["W_h"] = (JCA_WIDTH, window)
        for name, shape in layers.items():
            modules = {m: xavier(nn.Linear(*shape, bias=False)) for m in widths}
            self.add_module(name, nn.ModuleDict(modules))

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> dict[str, Tensor]:
        J = torch.cat(list(x.values()), -1)  # [X_v ; X_a], zero wherever its members are
        updated = {}
        for m, X in x.items():
            C = torch.tanh(X.mT @ self.W_j[m](J.mT).mT / math.sqrt(J.shape[-1]))  # (batch, d_m, d_J)
            H = F.relu(self.W_m[m](X.mT) + self.W_c[m](C))  # (batch, d_m, k)
            update = self.W_h[m](H).mT  # (batch, time, d_m)
            updated[m] = zero_invalid(X + update, None if valid is None else valid[m])
        return updated


class CrossAttention(nn.Module):
    """CA: each of two modalities attends over its own frames, weighted by its correlation with the other.

    Praveen, Granger, Cardinal, "Cross Attentional Audio-Visual Fusion for Dimensional Emotion Recognition",
    FG 2021 (arXiv 2111.05222), and its release. The first modality takes the part of X_v, the second of X_a.
    A masked frame has weight zero, so that nothing attends to it.
    """

    def __init__(self, widths: dict[str, int]):
        super().__init__()
        self.first, self.second = widths
        self.W = nn.Parameter(torch.empty(widths[self.second], widths[self.first]))
        nn.init.xavier_normal_(self.W)

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> dict[str, Tensor]:
        Z = x[self.second] @ self.W @ x[self.first].mT  # X_aᵀ W X_v, (batch, time of a, time of v)
        return {
            self.first: self._attend(x[self.first], Z.mT, None if valid is None else valid[self.first]),
            self.second: self._attend(x[self.second], Z, None if valid is None else valid[self.second]),
        }

    @staticmethod
    def _attend(X: Tensor, Z: Tensor, valid: Tensor | None) -> Tensor:
        """tanh(X + X A), A the softmax of Z down every column, that is over the frames of X itself."""
        if valid is not None:
            Z = Z.masked_fill(~valid[..., None], torch.finfo(Z.dtype).min)  # finite: no frame valid is no NaN
        A = zero_invalid(torch.softmax(Z, 1), valid)
        return zero_invalid(torch.tanh(X + A.mT @ X), valid)
