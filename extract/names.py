"""Parameter names of published visual checkpoints, turned into those our networks have (torchvision's for
ResNet-50).

Three layouts are met: Oxford's conversions from MatConvNet (VGGFace2, FER+), EMO-AffectNet's port from
Keras, and the IR-50 wrapped as a `backbone` with a classifier. A state dict already under our names passes
through unchanged.
"""

from __future__ import annotations

import re

import torch

State = dict[str, torch.Tensor]

_OXFORD_BLOCK = re.compile(r"conv(\d)_(\d+)_(1x1_reduce|3x3|1x1_increase|1x1_proj)(_bn)?\.(\w+)")
_OXFORD_LAYERS = {"1x1_reduce": "conv1", "3x3": "conv2", "1x1_increase": "conv3"}
_KERAS_EPS, _TORCH_EPS = 1e-3, 1e-5  # of batch normalisation


def our_names(state: State) -> State:
    """`state` under our networks' names, whichever of the known layouts it has."""
    if "conv1_7x7_s2.weight" in state:
        return rename_caffe_vgg(state)
    if "conv_layer_s2_same.weight" in state:
        return rename_emo_affectnet(state)
    if "backbone.input_layer.0.weight" in state:
        return {name.removeprefix("backbone."): value for name, value in state.items()}
    return state


def rename_caffe_vgg(state: State) -> State:
    """Oxford's names → torchvision's: `conv3_1_1x1_reduce_bn.weight` → `layer2.0.bn1.weight`.

    Their classifier is a 1×1 convolution (classes, 2048, 1, 1); it becomes `fc`, (classes, 2048).
    """
    return {_oxford_name(name): _flat(name, value) for name, value in state.items()}


def _oxford_name(name: str) -> str:
    name = name.replace("conv1_7x7_s2_bn.", "bn1.").replace("conv1_7x7_s2.", "conv1.")
    match = _OXFORD_BLOCK.fullmatch(name)
    if not match:
        return name.replace("classifier.", "fc.")
    stage, block, layer, is_norm, parameter = match.groups()
    place = f"layer{int(stage) - 1}.{int(block) - 1}"
    if layer == "1x1_proj":
        return f"{place}.downsample.{1 if is_norm else 0}.{parameter}"
    ours = _OXFORD_LAYERS[layer]
    return f"{place}.{ours.replace('conv', 'bn') if is_norm else ours}.{parameter}"


def _flat(name: str, value: torch.Tensor) -> torch.Tensor:
    return value.flatten(1) if name == "classifier.weight" and value.ndim == 4 else value


def rename_emo_affectnet(state: State) -> State:
    """EMO-AffectNet's names → torchvision's; its 2048 → 512 layer `fc1` becomes `projection`, the
    classifier `fc`.

    Its batch normalisations have Keras' eps of 1e-3: the difference to 1e-5 goes into the running
    variances, which gives the same outputs exactly.
    """
    renamed = {}
    for name, value in state.items():
        ours = name.replace("conv_layer_s2_same.", "conv1.").replace("batch_norm", "bn")
        ours = (
            ours.replace("i_downsample.", "downsample.").replace("fc1.", "projection.").replace("fc2.", "fc.")
        )
        renamed[ours] = value + (_KERAS_EPS - _TORCH_EPS) if ours.endswith("running_var") else value
    return renamed
