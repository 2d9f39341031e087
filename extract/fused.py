"""ResNet-50 for CPU with batch norms folded into the convolutions, and additions and ReLUs done by them.

The same function within rounding, with fewer passes over the activations. oneDNN does the work, through the operators
that torch.compile also lowers to; they need no compiler.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from extract.resnet import ResNet50


class FusedConv:
    """relu(norm(conv(x))), relu(norm(conv(x)) + other) where `other` is given, or without ReLU."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, relu: bool = True):
        folded = fuse_conv_bn_eval(conv, norm)
        self.geometry = (folded.padding, folded.stride, folded.dilation, folded.groups)
        weight = folded.weight.detach()
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, None)
        self.bias = folded.bias.detach()
        self.then = "relu" if relu else "none"

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        given = (self.weight, self.bias, *self.geometry)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *given, self.then, [], "")
        return torch.ops.mkldnn._convolution_pointwise(x, other, *given, "add", None, "relu", [], "")


class FusedBottleneck:
    def __init__(self, block: nn.Module):
        self.narrow = FusedConv(block.conv1, block.bn1)
        self.middle = FusedConv(block.conv2, block.bn2)
        self.wide = FusedConv(block.conv3, block.bn3)
        self.shortcut = FusedConv(*block.downsample, relu=False) if block.downsample else lambda x: x

    def __call__(self, x: Tensor) -> Tensor:
        return self.wide(self.middle(self.narrow(x)), self.shortcut(x))


class FusedResNet50:
    """What `network` in eval mode computes, from (B, 3, 224, 224) in channels_last."""

    def __init__(self, network: ResNet50):
        self.network = network
        self.stem = FusedConv(network.conv1, network.bn1)
        stages = (network.layer1, network.layer2, network.layer3, network.layer4)
        self.blocks = [FusedBottleneck(block) for stage in stages for block in stage]

    def __call__(self, x: Tensor) -> Tensor:
        x = self.network.maxpool(self.stem(self.network.bordered(x)))
        for block in self.blocks:
            x = block(x)
        return self.network.projected(F.adaptive_avg_pool2d(x, 1).flatten(1))
