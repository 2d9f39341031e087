"""Whether windows of a length can be worked on at all: the least memory that they take against what is there."""

from __future__ import annotations

import torch

from affuse.errors import UsageError
from affuse.fuse.data.room import GIB, free_memory
from affuse.fuse.models.attention import CrossAttention
from affuse.fuse.models.model import FusionModel, build_model
from affuse.fuse.training.settings import TrainSettings

SHORT = 3000  # frames of a window that is never in question: weights that mix them take 36 MB a matrix
BYTES = 4  # of a float32
COPIES = 4  # of each weight in training: itself, its gradient, and two moments of Adam


def measured(options: dict) -> FusionModel:
    """The model that `build_model` would make of these options, on torch's device "meta", where it takes no memory."""
    with torch.device("meta"):
        return build_model(**options)


def check_training(settings: TrainSettings, widths: dict[str, int], videos: int, device: torch.device) -> None:
    """Raise UsageError where training on so many videos, at least a window each, cannot fit into memory.

    Counted are weights, features, the encoders' outputs, and attention from frame to frame: less than it takes.
    """
    if settings.window > SHORT:
        model, batch = measured(settings.model_options(widths)), min(settings.batch, videos)
        weights = COPIES * sum(p.numel() for p in model.parameters())
        advice = "Take a shorter window or a smaller batch, for example --set window=300 --set batch=4."
        _check("Training", settings.window, batch, weights + batch * _numbers(model), device, advice)


def check_prediction(model: FusionModel, batch: int, device: torch.device) -> None:
    """The same for predicting so many windows at once; the weights are there already."""
    advice = "Predict on a machine with more memory, or train with a shorter window."
    _check("Predicting", model.options.window, batch, batch * _numbers(model), device, advice)


def _numbers(model: FusionModel) -> int:
    """How many at least are in memory for each window."""
    options = model.options
    square = options.attention == "frame" or any(isinstance(block, CrossAttention) for block in model.blocks)
    encoded = sum(encoder.width for encoder in model.encoders.values())
    return options.window * (sum(options.widths.values()) + encoded + square * options.window)


def _check(what: str, window: int, batch: int, numbers: int, device: torch.device, advice: str) -> None:
    there = free_memory(device)
    if numbers * BYTES > there:
        raise UsageError(
            f"{what} with a window of {window} frames, {batch} at once, takes at least {numbers * BYTES / GIB:.1f} GiB "
            f"of memory, and {there / GIB:.1f} GiB are free. {advice}"
        )
