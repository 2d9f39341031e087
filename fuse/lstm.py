"""The bidirectional LSTM of RJCA and DCA: over each modality before the attention, over both after it.

Praveen, Granger, Cardinal, "Recursive Joint Attention for Audio-Visual Fusion in Regression Based Emotion
Recognition", ICASSP 2023 (arXiv 2304.07958), sec. 2; sizes from the release.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuse.dropout import Dropout
from fuse.masks import zero_invalid

LAYERS = 2


class BiLSTM(nn.Module):
    """(batch, time, width) → (batch, time, out), every frame of unit length.

    Linear([x ; LSTM(x)]) and then L2 normalisation; h0 and c0 are learned, one per layer and direction.
    Invalid frames enter as zeros and leave as zeros; the recurrence itself steps over them.
    """

    def __init__(self, width: int, out: int, dropout: float):
        super().__init__()
        self.rnn = nn.LSTM(width, out // 2, LAYERS, batch_first=True, bidirectional=True, dropout=dropout)
        self.start = nn.Parameter(
            nn.init.xavier_uniform_(torch.empty(2 * 2 * LAYERS, out // 2))
        )  # h0, then c0
        self.linear = nn.Linear(width + out, out)
        self.dropout = Dropout(dropout)
        self.width = out
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        x = zero_invalid(x, valid)
        h0, c0 = self.start[:, None].expand(-1, len(x), -1).contiguous().to(x.dtype).chunk(2)
        y, _ = self.rnn(x, (h0, c0))
        y = self.linear(self.dropout(torch.cat([x, y.to(x.dtype)], -1)))
        return zero_invalid(F.normalize(y, dim=-1), valid)
