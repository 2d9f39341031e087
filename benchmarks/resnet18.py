"""A small visual backbone to measure watching with: torchvision's ResNet-18 on faces of 112 pixels, seeded."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18


class ResNet18:
    """Without its classifier; the values that it gives mean nothing."""

    size, width = 112, 512

    def __init__(self, device: torch.device, dtype: torch.dtype):
        torch.manual_seed(0)
        network = resnet18(weights=None)
        network.fc = nn.Identity()
        self.network = network.eval().to(device, memory_format=torch.channels_last)

    def encode(self, crops: torch.Tensor) -> torch.Tensor:
        return self.network((crops / 255 - 0.45).contiguous(memory_format=torch.channels_last))
