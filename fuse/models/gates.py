"""Gates: how much of each recursion's features, and of the un-attended ones, every frame takes: {name: class}.

`gate(width, recursions)`, one per modality, maps the steps X^0 … X^l to one of them all; `names` are its candidates.

DCA: Praveen, Alam, "Cross-Attention is Not Always Needed: Dynamic Cross-Attention for Audio-Visual
Dimensional Emotion Recognition", ICME 2024 (arXiv 2403.19554), and its release. GRJCA, HGRJCA: Rajasekhar,
Alam, Charton, "United We Stand, Divided We Fall: Handling Weak Complementarity for Audio-Visual Emotion
Recognition in Valence-Arousal Space", CVPRW 2025 (arXiv 2503.12261).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.fuse.models.layers import xavier

TEMPERATURE = 0.1


class Gate(nn.Module):
    """One modality's choice, frame by frame: ReLU(Σ_i w_i X_i) with w = softmax(Linear(query) / 0.1)."""

    def __init__(self, width: int, candidates: int):
        super().__init__()
        self.score = xavier(nn.Linear(width, candidates))

    def forward(self, query: Tensor, candidates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """query and k candidates (batch, time, width) → the chosen (same shape), weights (batch, time, k)."""
        weights = torch.softmax(self.score(query) / TEMPERATURE, -1)
        chosen = sum(weights[..., i, None] * x for i, x in enumerate(candidates))
        return F.relu(chosen), weights


class FlatGate(nn.Module):
    """DCA (last = 1) chooses between X^0 and X^l, GRJCA (2) between X^0, X^{l−1} and X^l; both ask X^l."""

    def __init__(self, width: int, recursions: int, last: int):
        super().__init__()
        self.steps = [0, *range(recursions + 1 - last, recursions + 1)]
        self.gate = Gate(width, len(self.steps))
        self.names = [f"X{i}" for i in self.steps]

    def forward(self, steps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """steps X^0 … X^l → the gated features, [weights (batch, time, k)]."""
        chosen, weights = self.gate(steps[-1], [steps[i] for i in self.steps])
        return chosen, [weights]


class HierarchicalGate(nn.Module):
    """HGRJCA: after recursion i gate G_i chooses among X^0 … X^i; a last one, asking X^l, among the G_i."""

    def __init__(self, width: int, recursions: int):
        super().__init__()
        self.inner = nn.ModuleList(Gate(width, i + 1) for i in range(1, recursions + 1))
        self.outer = Gate(width, recursions)
        self.names = [f"G{i}" for i in range(1, recursions + 1)]

    def forward(self, steps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """steps X^0 … X^l → the gated features, [outer weights (batch, time, l), inner (…, 2) … (…, l+1)]."""
        inner = [gate(steps[i], steps[: i + 1]) for i, gate in enumerate(self.inner, 1)]
        chosen, weights = self.outer(steps[-1], [g for g, _ in inner])
        return chosen, [weights, *(w for _, w in inner)]


GATES = {"dca": partial(FlatGate, last=1), "grjca": partial(FlatGate, last=2), "hgrjca": HierarchicalGate}
