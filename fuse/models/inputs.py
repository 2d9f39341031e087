"""What a model is given, checked: features that fit it, and a mask in whatever form, made one for every modality."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from affuse.errors import UsageError
from affuse.fuse.models.spec import Options

Shape = tuple[int, int]  # batch, time


def check_features(features: dict[str, Tensor], options: Options, window: int | None, weight: Tensor | None) -> Shape:
    """Batch and time of features {m: (batch, time, width_m)} for a model of these options, of which `weight` is one.
    Raises UsageError, saying what does not fit."""
    name, widths = options.name, options.widths
    if not isinstance(features, dict) or not all(isinstance(v, Tensor) for v in features.values()):
        kinds = features.values() if isinstance(features, dict) else [features]
        raise UsageError(
            f"Features must be a dictionary {{modality: torch.Tensor (batch, time, width)}} of "
            f"{', '.join(widths)}, not of {', '.join(dict.fromkeys(type(k).__name__ for k in kinds))}."
        )
    if set(features) != set(widths):
        raise UsageError(
            f"Model {name!r} takes {', '.join(widths)}, not {', '.join(features) or 'nothing'}. "
            "For a missing one pass zeros and a mask that is False."
        )
    shapes = {m: tuple(v.shape) for m, v in features.items()}
    if any(len(s) != 3 for s in shapes.values()) or len({s[:2] for s in shapes.values()}) != 1:
        raise UsageError(f"Features must be (batch, time, width) of one batch and time, not {shapes}.")
    for m, width in widths.items():
        if shapes[m][2] != width:
            raise UsageError(
                f"Model {name!r} was built for {m} features {width} wide, these are {shapes[m][2]} wide: "
                "they come from another backbone, or the model from other features."
            )
        own = features[m].dtype if weight is None else weight.dtype
        if features[m].dtype != own and not torch.is_autocast_enabled(weight.device.type):
            raise UsageError(
                f"The {m} features are {features[m].dtype}, the model is {own}: give it features.to({own}), or let "
                "Run.predict read them."
            )
    ((batch, time),) = {s[:2] for s in shapes.values()}
    if not time:
        raise UsageError("The input has no frames.")
    if time > (window or time):
        raise UsageError(f"The input has {time} frames, the model's window {window}; cut it into windows.")
    return batch, time


def masks(
    mask: Tensor | dict[str, Tensor] | None, modalities: Iterable[str], shape: Shape, device: torch.device
) -> dict[str, Tensor]:
    """{m: (batch, time) bool} of every modality; True everywhere where the mask says nothing of it. Raises UsageError
    for what is no mask of such a shape."""
    mask = mask if isinstance(mask, dict) else dict.fromkeys(modalities, mask)
    if unknown := set(mask) - set(modalities):
        raise UsageError(f"The mask names {', '.join(sorted(map(str, unknown)))}; known: {', '.join(modalities)}.")
    valid = dict.fromkeys(modalities, torch.ones(shape, dtype=torch.bool, device=device))
    for m, v in mask.items():
        if v is None:
            continue
        if not isinstance(v, Tensor):
            raise UsageError(
                "A mask is a torch.Tensor (batch, time), True where a frame counts, or a dictionary of such, "
                f"not {type(v).__name__}."
            )
        if tuple(v.shape) != shape:
            raise UsageError(f"The mask of {m} is {tuple(v.shape)}; it must be (batch, time) = {shape}.")
        valid[m] = v.bool()
    return valid
