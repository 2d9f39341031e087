"""Weights into a model, and a plain answer when they belong to another one."""

from __future__ import annotations

from torch import Tensor, nn

from features.errors import UsageError

NAMED = 4  # differences spelled out; the rest are counted


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dictionary into `model`, all of it or nothing.

    source names the file in the message. Raises UsageError saying how the weights differ: tensors that are
    missing, tensors the model has no place for, tensors of another shape.
    """
    own = model.state_dict()
    differences = [f"{k} is missing" for k in own if k not in state]
    differences += [f"{k} has no place in the model" for k in state if k not in own]
    differences += [
        f"{k} is {tuple(state[k].shape)} in the file and {tuple(v.shape)} in the model"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    if differences:
        more = len(differences) - NAMED
        rest = f"; and {more} more" if more > 0 else ""
        raise UsageError(
            f"The weights in {source} belong to another model, other widths or another window: "
            f"{'; '.join(differences[:NAMED])}{rest}. Build the model from the settings saved with them."
        )
    model.load_state_dict(state)
