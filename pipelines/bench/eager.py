"""RJCMA as its release composes it (github.com/praveena2j/RJCMA), module by module of torch's own, without masks: what
training is measured beside. The same numbers as `build_model("rjcma")` gives with the same weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

KERNEL = 5  # frames
CHANNELS = {"visual": (512, 512, 256, 256), "audio": (128, 128, 128, 128), "text": (256, 256, 128, 128)}
RECURSIONS = 2


class Block(nn.Module):
    """(batch, width, time) → (batch, out, time): padded on both sides and cut, as the releases make it causal."""

    def __init__(self, width: int, out: int, dilation: int):
        super().__init__()
        self.cut = (KERNEL - 1) * dilation
        self.first = weight_norm(nn.Conv1d(width, out, KERNEL, padding=self.cut, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(out, out, KERNEL, padding=self.cut, dilation=dilation))
        self.skip = nn.Conv1d(width, out, 1) if width != out else None
        self.activation, self.dropout = nn.LeakyReLU(), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.activation(self.first(x)[..., : -self.cut].contiguous()))
        y = self.dropout(self.activation(self.second(y)[..., : -self.cut].contiguous()))
        return self.activation(y + (x if self.skip is None else self.skip(x)))


class Encoder(nn.Module):
    """(batch, time, width) → (batch, time, channels[-1])."""

    def __init__(self, width: int, channels: tuple[int, ...]):
        super().__init__()
        steps = enumerate(zip((width, *channels), channels, strict=False))
        self.blocks = nn.Sequential(*(Block(a, b, 2**i) for i, (a, b) in steps))
        self.norm = nn.BatchNorm1d(channels[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(x.transpose(1, 2))).transpose(1, 2)


class Attention(nn.Module):
    """One recursion. FC of the joint is computed and not used, as released."""

    def __init__(self, widths: dict[str, int], window: int):
        super().__init__()
        joint = sum(widths.values())
        self.fc = nn.Linear(joint, joint)
        self.W_j = nn.ModuleDict({m: nn.Linear(window, window) for m in widths})
        self.W_c = nn.ModuleDict({m: nn.Linear(d, d) for m, d in widths.items()})
        self.W_h = nn.ModuleDict({m: nn.Linear(joint, d) for m, d in widths.items()})
        self.dropout = nn.Dropout(0.6)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        joint = torch.cat(list(x.values()), -1)
        self.fc(joint)
        updated = {}
        for m, X in x.items():
            C = self.dropout(torch.tanh(self.W_j[m](X.transpose(1, 2)) @ joint / math.sqrt(joint.shape[-1])))
            H = F.relu(torch.tanh(self.W_c[m](X) @ C))
            updated[m] = X + self.dropout(F.relu(self.W_h[m](H)))
        return updated


class EagerRJCMA(nn.Module):
    """{m: (batch, window, width)} → (batch, window, 2)."""

    def __init__(self, widths: dict[str, int], window: int):
        super().__init__()
        self.encoders = nn.ModuleDict({m: Encoder(d, CHANNELS[m]) for m, d in widths.items()})
        encoded = {m: CHANNELS[m][-1] for m in widths}
        self.blocks = nn.ModuleList(Attention(encoded, window) for _ in range(RECURSIONS))
        self.inner = nn.Linear(sum(encoded.values()), 256)
        self.norm, self.outer = nn.BatchNorm1d(256), nn.Linear(256, 2)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        x = {m: self.encoders[m](v) for m, v in features.items()}
        for block in self.blocks:
            x = block(x)
        y = self.inner(torch.cat(list(x.values()), -1))
        y = F.leaky_relu(self.norm(y.transpose(1, 2)).transpose(1, 2))
        return torch.tanh(self.outer(y))


def ccc_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """1 − ρ_c of every window and target of (batch, time, targets), averaged."""
    x, y = truth - truth.mean(1, keepdim=True), prediction - prediction.mean(1, keepdim=True)
    apart = (truth.mean(1) - prediction.mean(1)).square()
    return 1 - (2 * (x * y).mean(1) / (x.square().mean(1) + y.square().mean(1) + apart)).mean()
