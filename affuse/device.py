"""Picking the device that a command runs on."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

from affuse.errors import UsageError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one. Raises UsageError for one that is absent."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = shorten(str(error).splitlines()[0], 120)
        raise UsageError(f"Device {name!r} cannot be used: {reason} Try cpu, cuda, or auto.") from None
    return device
