"""Tensors and JSON in one safetensors file that is either the old one or the new one, never half of
either."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from affuse.errors import AffuseError
from affuse.files import publish

FORMAT = 1  # of everything written by `write_tensors`


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file at once and for good. Raises AffuseError naming it where it cannot be written."""
    publish(path, lambda sink: sink.write(data), lambda written: None)


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write tensors (from any device) and JSON-able facts as one file."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key only: safetensors writes several in an order that changes from run to run.
    write_bytes(path, save(on_cpu, {"affuse": json.dumps({"format": FORMAT, **facts})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors (on the CPU) and facts as `write_tensors` left them. Raises AffuseError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise AffuseError(
            f"{path} cannot be read: {error}. Restore it from a copy, or train again."
        ) from None
    if "affuse" not in metadata:
        raise AffuseError(f"{path} is a safetensors file, but not one of affuse's.")
    facts = json.loads(metadata["affuse"])
    if facts["format"] > FORMAT:
        raise AffuseError(
            f"{path} was written by a newer affuse (format {facts['format']}; this one knows {FORMAT}). "
            "Update affuse."
        )
    return tensors, facts


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named `prefix.…`, without the prefix."""
    return {
        name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")
    }


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, flat: "{parameter number}.{name}" → tensor."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, part in state.items() for name, tensor in part.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimiser_tensors` on an optimiser made with the same options."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
