"""The visual networks: ResNet-50 in torchvision's and in caffe's style, and the ArcFace IR-50.

All return an embedding per face; none has a classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import resnet50 as torchvision_resnet50
from torchvision.models.resnet import Bottleneck


def resnet50(caffe: bool = False, ceil_pool: bool = False) -> nn.Module:
    """ResNet-50 (He et al. 2016) up to the pooled layer: (B, 3, 224, 224) → (B, 2048).

    caffe: the stride of a stage sits on the first 1×1 convolution of its bottleneck, as in the original
    release and the VGGFace2 and FER+ networks; torchvision puts it on the 3×3. Parameter names are torchvision's.
    ceil_pool: the first pooling rounds up and has no border, as caffe's does.
    """
    network = torchvision_resnet50(weights=None)
    network.fc = nn.Identity()
    if caffe:
        for stage in (network.layer2, network.layer3, network.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    if ceil_pool:
        network.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    return network


def damp(network: nn.Module) -> None:
    """Scale the residual branches of an untrained network, whose activations would otherwise outgrow float16."""
    for module in network.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)


class IRBlock(nn.Module):
    """Improved residual unit (Deng et al. 2019, ArcFace §3.1): BN, 3×3, PReLU, 3×3 with the stride, BN."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        if width_in == width:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(width_in),
            nn.Conv2d(width_in, width, 3, 1, 1, bias=False),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class IR50(nn.Module):
    """ArcFace IR-50 for faces of 40 pixels: (B, 3, 40, 40) → (B, 512), of unit length."""

    STAGES = ((64, 3, 1), (128, 4, 2), (256, 14, 2), (512, 3, 2))  # width, blocks, stride of the first

    def __init__(self):
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks, before = [], 64
        for width, count, stride in self.STAGES:
            for i in range(count):
                blocks.append(IRBlock(before, width, stride if i == 0 else 1))
                before = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), nn.Linear(512 * 5 * 5, 512), nn.BatchNorm1d(512)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.output_layer(self.body(self.input_layer(x)))
        return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
