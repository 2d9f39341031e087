"""The leader–follower network: modalities attend to each other within a frame, the leader stays beside them.

Zhang et al., "Continuous Emotion Recognition Using Visual-Audio-Linguistic Information: A Technical Report
for ABAW3", CVPRW 2022 (arXiv 2203.13031), and its release.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fuse.attention import xavier
from fuse.dropout import Dropout
from fuse.masks import Valid, zero_invalid

HEADS, HEAD_WIDTH = 2, 16
MODAL_WIDTH = HEADS * HEAD_WIDTH


class LeaderFollower(nn.Module):
    """{m: (batch, time, d_m)} → (batch, time, d_leader + 32·M); the leader is the first modality.

    A missing modality is no key for the others and gives no value of its own.
    """

    def __init__(self, widths: dict[str, int], dropout: float):
        super().__init__()
        followers = MODAL_WIDTH * len(widths)
        self.qkv = nn.ModuleDict({m: xavier(nn.Linear(d, 3 * MODAL_WIDTH)) for m, d in widths.items()})
        self.project = xavier(nn.Linear(followers, followers))
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(followers)
        self.leader = next(iter(widths))
        self.width = widths[self.leader] + followers

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> Tensor:
        batch, time = x[self.leader].shape[:2]
        qkv = [self.qkv[m](x[m]).view(batch, time, HEADS, 1, 3 * HEAD_WIDTH) for m in x]
        q, k, v = torch.cat(qkv, 3).chunk(3, -1)  # each (batch, time, heads, modalities, 16)
        scores = q @ k.mT / math.sqrt(HEAD_WIDTH)
        if valid is None:
            attended = torch.softmax(scores, -1) @ v + v
        else:
            present = torch.stack([valid[m] for m in x], -1)[:, :, None]  # (batch, time, 1, modalities)
            scores = scores.masked_fill(~present[..., None, :], torch.finfo(scores.dtype).min)
            attended = (torch.softmax(scores, -1) @ v + v).masked_fill(~present[..., None], 0)
        followers = self.norm(self.dropout(self.project(attended.flatten(2))))
        leader = zero_invalid(x[self.leader], None if valid is None else valid[self.leader])
        return torch.cat([leader, followers], -1)
