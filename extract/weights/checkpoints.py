"""Reading weights, never unpickling objects, under the parameter names that our networks have.

state = load_state(located.path)    name → tensor

Three layouts of published visual checkpoints are met: Oxford's conversions from MatConvNet (VGGFace2, FER+),
EMO-AffectNet's port from Keras, and the IR-50 wrapped as a `backbone` with a classifier. A state dict already under
our names (torchvision's for ResNet-50) passes through unchanged.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from affuse.errors import AffuseError, first_line
from affuse.extract.weights.locate import SEED, Located

State = dict[str, torch.Tensor]

_OXFORD_BLOCK = re.compile(r"conv(\d)_(\d+)_(1x1_reduce|3x3|1x1_increase|1x1_proj)(_bn)?\.(\w+)")
_OXFORD_LAYERS = {"1x1_reduce": "conv1", "3x3": "conv2", "1x1_increase": "conv3"}
_KERAS_EPS, _TORCH_EPS = 1e-3, 1e-5  # of batch normalisation


def load_state(path: Path, name: str = "") -> State:
    """Read a state dict, name → tensor on the CPU, under our networks' parameter names.

    A file that wraps it as {"state_dict": …} is opened. `name` is the backbone's, for messages (default: the
    file's). Raises AffuseError for a damaged file, or one that holds other things than tensors.
    """
    state = _read(path, name or path.stem)
    if isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    strange = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if strange or not state:
        reason = f"{strange[0]!r} in it is not a tensor" if strange else "it is empty"
        raise AffuseError(f"{path} is not a state dict of backbone {name or path.stem!r}: {reason}.")
    return our_names(dict(state))


def load_weights(network: nn.Module, located: Located, without: tuple[str, ...] = ()) -> None:
    """Load a backbone's file into its network, but for names that begin as `without` says.

    Raises AffuseError where names or shapes do not fit.
    """
    state = load_state(located.path, located.name)
    fill(network, {name: value for name, value in state.items() if not name.startswith(without)}, located)


def fill(network: nn.Module, state: State, located: Located) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        summary = str(error).partition("\n")[2].strip()[:300]
        raise AffuseError(f"{located.path} does not hold the weights of {located.name}: {summary}") from None


def load_whisper(path: Path, name: str = "") -> tuple[dict[str, int], State]:
    """Read an openai-whisper checkpoint: (dims, state dict). Raises AffuseError where it is not one."""
    checkpoint = _read(path, name or path.stem)
    dims, state = checkpoint.get("dims"), checkpoint.get("model_state_dict")
    if not (isinstance(dims, dict) and isinstance(state, dict)):
        raise AffuseError(
            f"{path} is not an openai-whisper checkpoint of backbone {name or path.stem!r}: it must hold "
            "'dims' and 'model_state_dict'."
        )
    return dims, state


def load_transformer(located: Located, kind: str) -> tuple[nn.Module, list[str]]:
    """A transformers model from its folder, on the CPU, seeded where it is untrained; and the names of its poolers'
    weights that are not there. Raises AffuseError where the folder does not hold a `kind`."""
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        if not located.trained:
            torch.manual_seed(SEED)
            return AutoModel.from_config(AutoConfig.from_pretrained(located.path, **local)), []
        network, loaded = AutoModel.from_pretrained(located.path, output_loading_info=True, **local)
        missing = sorted(set(loaded["missing_keys"]) - {"masked_spec_embed"})  # of training
        needed = [name for name in missing if ".pooler." not in f".{name}"]
        if needed:
            raise ValueError(f"its weights lack {needed[0]} and {len(needed) - 1} others")
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise AffuseError(f"{located.path} is not a transformers folder of a {kind}: {error}") from None
    return network, missing


def _read(path: Path, name: str) -> dict:
    safe = path.suffix == ".safetensors"
    try:
        content = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # the unpickler stumbles in many ways over a file that is none
        # torch's own words on what needs unpickling would have people do it
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = "it is no file of plain tensors" if pickled else first_line(error)
        raise AffuseError(
            f"Weights of backbone {name!r} in {path} cannot be read: {reason}. The file is "
            "damaged, or holds more than plain tensors (what needs unpickling is refused). Get it again."
        ) from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise AffuseError(f"Weights of backbone {name!r} in {path}: not a dictionary of tensors, but a {kind}.")
    return content


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
    renamed = {_oxford_name(name): value for name, value in state.items()}
    if "fc.weight" in renamed:
        renamed["fc.weight"] = renamed["fc.weight"].flatten(1)
    return renamed


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


def rename_emo_affectnet(state: State) -> State:
    """EMO-AffectNet's names → torchvision's; its 2048 → 512 layer `fc1` becomes `projection`, the classifier `fc`.

    Its batch normalisations have Keras' eps of 1e-3: the difference to 1e-5 goes into the running variances, which
    gives the same outputs exactly.
    """
    renamed = {}
    for name, value in state.items():
        ours = name.replace("conv_layer_s2_same.", "conv1.").replace("batch_norm", "bn")
        ours = ours.replace("i_downsample.", "downsample.").replace("fc1.", "projection.").replace("fc2.", "fc.")
        renamed[ours] = value + (_KERAS_EPS - _TORCH_EPS) if ours.endswith("running_var") else value
    return renamed
