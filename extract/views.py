"""Further views of each face, kept beside its centre crop for training to draw from: a mirror image, crops at corners.

The reference code shifts and mirrors every window's faces at random. Frozen features can do the same with what was
computed once: centre, its mirror image, and the four corners (which are not mirrored).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from extract.visual import FaceEncoder

CHOICES = ("centre", "flip", "corners")  # what the setting `views` may name, in its one order
CORNERS = {"top-left": (0, 0), "top-right": (0, 1), "bottom-left": (1, 0), "bottom-right": (1, 1)}


def stored_views(chosen: tuple[str, ...]) -> list[str]:
    """The views kept beside the centre, by name and in order: flip, top-left, top-right, bottom-left, bottom-right."""
    return [*(["flip"] if "flip" in chosen else []), *(CORNERS if "corners" in chosen else [])]


def sides(chosen: tuple[str, ...], encoder: FaceEncoder) -> set[int]:
    """The sides, in pixels, to which each face's square is resized for these views."""
    return {encoder.size, encoder.room} if "corners" in chosen else {encoder.size}


def cut_view(view: str, squares: Mapping[int, Tensor], encoder: FaceEncoder) -> Tensor:
    """One view of faces, as the encoder takes it.

    squares {side S: (n, 3, S, S)}, the same faces at the sides that `sides` names. flip is the whole square mirrored,
    from which the encoder takes the centre; a corner is that of the square of side `room`, as large as the network's
    input: it lies (room − input) / 2 pixels beside the centre of that square, in both directions.
    """
    if view == "flip":
        return squares[encoder.size].flip(3)
    lower, right = CORNERS[view]
    beyond = encoder.room - encoder.centre
    top, left = lower * beyond, right * beyond
    return squares[encoder.room][:, :, top : top + encoder.centre, left : left + encoder.centre]
