"""Reading weights, never unpickling objects.

state = load_state(located.path)    name → tensor
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from extract.names import our_names
from extract.weights import Located
from features.errors import AffuseError

READ_ERRORS = (  # the unpickler's own, and what it stumbles over in a file that is none
    OSError,
    AssertionError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    pickle.UnpicklingError,
    SafetensorError,
)


def load_state(path: Path, name: str = "") -> dict[str, torch.Tensor]:
    """Read a state dict, name → tensor on the CPU, under our networks' parameter names (see extract.names).

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


def fill(network: nn.Module, state: dict[str, torch.Tensor], located: Located) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        summary = str(error).partition("\n")[2].strip()[:300]
        raise AffuseError(f"{located.path} does not hold the weights of {located.name}: {summary}") from None


def load_whisper(path: Path, name: str = "") -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """Read an openai-whisper checkpoint: (dims, state dict). Raises AffuseError where it is not one."""
    checkpoint = _read(path, name or path.stem)
    dims, state = checkpoint.get("dims"), checkpoint.get("model_state_dict")
    if not (isinstance(dims, dict) and isinstance(state, dict)):
        raise AffuseError(
            f"{path} is not an openai-whisper checkpoint of backbone {name or path.stem!r}: it must hold "
            "'dims' and 'model_state_dict'."
        )
    return dims, state


def _read(path: Path, name: str) -> dict:
    safe = path.suffix == ".safetensors"
    try:
        content = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
    except READ_ERRORS as error:
        # torch's own words on what needs unpickling would have people do it
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = "it is no file of plain tensors" if pickled else _first_line(error)
        raise AffuseError(
            f"Weights of backbone {name!r} in {path} cannot be read: {reason}. The file is "
            "damaged, or holds more than plain tensors (what needs unpickling is refused). Get it again."
        ) from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise AffuseError(
            f"Weights of backbone {name!r} in {path}: not a dictionary of tensors, but a {kind}."
        )
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
