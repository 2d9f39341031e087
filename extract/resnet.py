"""The visual networks: ResNet-50 in torchvision's and in caffe's style, the same folded for CPU, and the ArcFace IR-50.

All return an embedding per face; none has a classifier.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck, ResNet

from affuse.extract.winograd import Winograd, pays


class ResNet50(ResNet):
    """ResNet-50 (He et al. 2016) up to the pooled layer: (B, 3, 224, 224) → (B, 2048).

    Parameter names are torchvision's; the options are what published checkpoints differ in.
    caffe: the stride of a stage sits on the first 1×1 convolution of its bottleneck, as in the original release
    and the VGGFace2 and FER+ networks; torchvision puts it on the 3×3.
    ceil_pool: the first pooling rounds up and has no border, as caffe's does.
    keras_stem: the first convolution has a border of 2 before and 3 after, the pooling none ("same" in Keras).
    projection: width of a linear layer with ReLU behind the pooling, 0 for none; the embedding is its output.
    """

    def __init__(self, caffe=False, ceil_pool=False, keras_stem=False, projection=0):
        super().__init__(Bottleneck, [3, 4, 6, 3])
        self.fc = nn.Identity()
        if caffe:
            for stage in (self.layer2, self.layer3, self.layer4):
                stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        self.keras_stem = keras_stem
        if keras_stem:
            self.conv1.padding = (0, 0)
        if ceil_pool or keras_stem:
            self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=ceil_pool)
        if projection:
            self.projection = nn.Linear(2048, projection)

    def bordered(self, x: Tensor) -> Tensor:
        return F.pad(x, (2, 3, 2, 3)) if self.keras_stem else x

    def projected(self, pooled: Tensor) -> Tensor:
        return F.relu(self.projection(pooled)) if hasattr(self, "projection") else pooled

    def forward(self, x: Tensor) -> Tensor:
        return self.projected(super().forward(self.bordered(x)))


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
        if pays(block.conv2):
            folded = fuse_conv_bn_eval(block.conv2, block.bn2)
            self.middle = nn.Sequential(Winograd(folded), nn.ReLU(inplace=True))
        else:
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


def folded(network: ResNet50) -> nn.Module:
    """The same in eval mode, with its norms folded into its convolutions."""
    return fuse(network)


def for_cpu(network: ResNet50) -> Callable[[Tensor], Tensor]:
    """What `network` in eval mode computes, its norms folded into its convolutions: in oneDNN's fused operators, which
    are private to torch's compiler, where this build has them and they serve here, and Winograd's convolutions, else in
    plain ones."""
    try:
        fused = FusedResNet50(network)
        fused(torch.zeros(1, 3, 64, 64, dtype=network.conv1.weight.dtype))
    except (AttributeError, RuntimeError):  # another build of torch, or another kind of processor
        return folded(network)
    for copied in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
        delattr(network, copied)
    return fused
