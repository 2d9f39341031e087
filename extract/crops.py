"""Square crops of faces: cut from frames or given, and resized as the networks take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from affuse.extract.media import Picture
from affuse.extract.people import Layer

Face = tuple[Layer, int, torch.Tensor]  # the frame's index in the layer, and the face's square (side, side, 3) uint8


def square(box: np.ndarray, margin: float) -> tuple[int, int, int]:
    """The square around a box, its side the longer one extended by `margin`: left, top, side in whole pixels."""
    left, top, right, bottom = (float(v) for v in box)
    side = max(2, round(max(right - left, bottom - top) * (1 + margin)))
    return round((left + right - side) / 2), round((top + bottom - side) / 2), side


def crop(pixels: np.ndarray | torch.Tensor, box: np.ndarray, margin: float) -> torch.Tensor:
    """The face's square, (side, side, 3) uint8, on the device that the picture (H, W, 3) is on. Parts of it outside the
    frame repeat the frame's edge."""
    pixels, (left, top, side) = torch.as_tensor(pixels), square(box, margin)
    height, width = pixels.shape[:2]
    if 0 <= top <= height - side and 0 <= left <= width - side:
        return pixels[top : top + side, left : left + side].clone()
    rows = torch.arange(top, top + side, device=pixels.device).clamp(0, height - 1)
    columns = torch.arange(left, left + side, device=pixels.device).clamp(0, width - 1)
    return pixels[rows[:, None], columns[None, :]]


def cut_squares(pictures: Iterable[Picture], layers: Sequence[Layer], margin: float) -> Iterator[Face]:
    """The faces of all layers, from the pictures of the video up to the last in which there is one."""
    there = np.stack([layer.confidence > 0 for layer in layers])  # (layers, T)
    last = max(np.flatnonzero(there.any(axis=0)), default=-1)
    for index, picture in zip(range(last + 1), pictures, strict=False):
        if there[:, index].any():
            pixels = picture.kept()
            for layer in compress(layers, there[:, index]):
                yield layer, index, crop(pixels, layer.box[index], margin)


def resize(picture: torch.Tensor, size: int) -> torch.Tensor:
    """(H, W, 3) uint8 → (3, size, size) float32 in 0–255, bilinear with antialiasing.

    In float, because torch's integer path rounds differently for different memory layouts.
    """
    pixels = picture.permute(2, 0, 1)[None].float()
    return interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def read_crop(path: Path, damage: list[str]) -> torch.Tensor | None:
    """A given face crop, (H, W, 3) uint8; None where it is missing, or unreadable (then noted)."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        damage.append(f"crop {path.name}: {error}")
        return None
