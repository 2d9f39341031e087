"""Temporal encoders, one per modality in front of the attention: {name: class}, made alike and called alike.

`encoder(width, channels, dropout)` maps (batch, time, width) → (batch, time, encoder.width); channels are the
widths of its layers, the last being what it gives. An invalid frame enters and leaves as zeros.

TCN: Bai, Kolter, Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
Modeling", arXiv 1803.01271, sec. 3, with LeakyReLU in place of ReLU as the ABAW3 and RJCMA releases have it.
BiLSTM: RJCA, Praveen, Granger, Cardinal, "Recursive Joint Attention for Audio-Visual Fusion in Regression Based
Emotion Recognition", ICASSP 2023 (arXiv 2304.07958), and its release.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from affuse.fuse.models.convolution import TAPS, causal_convolution
from affuse.fuse.models.layers import Dropout, MaskedBatchNorm1d, xavier, zero_invalid

SLOPE = 0.01  # of LeakyReLU
LAYERS = 2  # of the BiLSTM


class CausalConv1d(nn.Module):
    """Weight-normed convolution that sees the present and the past only: zeros on the left, none after."""

    def __init__(self, width: int, out: int, dilation: int):
        super().__init__()
        # torch's default initialisation of v; weight_norm then sets g = ‖v‖. (The releases call Xavier on the
        # already normed weight, which changes nothing.)
        self.conv = weight_norm(nn.Conv1d(width, out, TAPS, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        return causal_convolution(x, self.conv.weight, self.conv.bias, *self.conv.dilation)


class TemporalBlock(nn.Module):
    """(batch, time, width) → (batch, time, out): twice [conv → LeakyReLU → Dropout], + input, LeakyReLU."""

    def __init__(self, width: int, out: int, dilation: int, dropout: float):
        super().__init__()
        self.first = CausalConv1d(width, out, dilation)
        self.second = CausalConv1d(out, out, dilation)
        self.skip = nn.Linear(width, out) if width != out else None  # the 1×1 convolution
        if self.skip is not None:
            nn.init.xavier_uniform_(self.skip.weight, gain=math.sqrt(2))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.leaky_relu(self.first(x), SLOPE, inplace=True))
        y = self.dropout(F.leaky_relu(self.second(y), SLOPE, inplace=True))
        return F.leaky_relu(y + (x if self.skip is None else self.skip(x)), SLOPE, inplace=True)


class TCN(nn.Module):
    """Causal residual blocks; block i dilates by 2^i, BatchNorm follows the last.

    Four blocks reach 1 + 2·4·(1+2+4+8) = 121 frames, into the past only.
    """

    def __init__(self, width: int, channels: list[int], dropout: float):
        super().__init__()
        steps = enumerate(zip([width, *channels], channels, strict=False))
        self.blocks = nn.Sequential(*(TemporalBlock(a, b, 2**i, dropout) for i, (a, b) in steps))
        self.norm = MaskedBatchNorm1d(channels[-1])
        self.width = channels[-1]

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        x = zero_invalid(x, valid)
        return zero_invalid(self.norm(self.blocks(x), valid), valid)


class BiLSTM(nn.Module):
    """Linear([x ; LSTM(x)]) and then L2 normalisation: every frame of unit length.

    h0 and c0 are learned, one per layer and direction. The recurrence steps over invalid frames.
    """

    def __init__(self, width: int, channels: list[int], dropout: float):
        super().__init__()
        self.width = out = channels[-1]
        self.rnn = nn.LSTM(width, out // 2, LAYERS, batch_first=True, bidirectional=True, dropout=dropout)
        start = torch.empty(2 * 2 * LAYERS, out // 2)  # h0, then c0
        self.start = nn.Parameter(nn.init.xavier_uniform_(start))
        self.linear = xavier(nn.Linear(width + out, out))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        x = zero_invalid(x, valid)
        h0, c0 = self.start[:, None].expand(-1, len(x), -1).contiguous().to(x.dtype).chunk(2)
        y, _ = self.rnn(x, (h0, c0))
        y = self.linear(self.dropout(torch.cat([x, y.to(x.dtype)], -1)))
        return zero_invalid(F.normalize(y, dim=-1), valid)


class FrameLinear(nn.Linear):
    """The encoder that looks at no other frame."""

    def __init__(self, width: int, channels: list[int], dropout: float):
        super().__init__(width, channels[-1])
        self.width = channels[-1]

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return zero_invalid(super().forward(zero_invalid(x, valid)), valid)


class Unencoded(nn.Module):
    """Features as they are."""

    def __init__(self, width: int, channels: list[int], dropout: float):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return x


ENCODERS = {"tcn": TCN, "bilstm": BiLSTM, "linear": FrameLinear, "none": Unencoded}
