"""Pictures by a GPU's own decoder (NVDEC), through PyAV, made RGB on the device.

A frame is NV12 there: brightness (H, W), and two differences of colour (H/2, W/2, 2), in 8 bits, or in the upper bits
of 16. A file that it does not decode is decoded on the CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import av
import torch
from torch import Tensor
from torch.utils import dlpack

from affuse.errors import AffuseError, first_line
from affuse.extract.media import Picture, read_pictures

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel

log = logging.getLogger("affuse")
RED_BLUE = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}  # their weights in brightness: BT.709, 2020
USUAL = (0.299, 0.114)  # BT.601, also where a file does not say
FULL = 2  # FFmpeg's number for values that fill 0 to 255


def decoded_there(path: Path, device: torch.device, damage: list[str] | None = None) -> Iterator[Picture]:
    """`read_pictures`, by the decoder of the device where it has one and that decodes the file."""
    if device.type != "cuda":
        return read_pictures(path, damage)
    noted: list[str] = []
    try:
        pictures = read_pictures(path, noted, accelerator(device))
        first = next(pictures, None)
        if first is not None and first.on_gpu:
            rgb(first.frame, 1, 1)
        reason = "" if first is not None else "; ".join(noted[:1]) or "no picture came of it"
    except (AffuseError, ImportError, NotImplementedError, TypeError, ValueError, av.error.FFmpegError) as error:
        reason = first_line(error)
    if reason:
        log.debug("%s is decoded on the CPU: %s", path, reason)
        return read_pictures(path, damage)
    return _noting(chain([first], pictures), noted, damage)


def _noting(pictures: Iterator[Picture], noted: list[str], damage: list[str] | None) -> Iterator[Picture]:
    try:
        yield from pictures
    finally:
        if damage is not None:
            damage += noted


def accelerator(device: torch.device) -> HWAccel:
    """Raises ImportError where this PyAV, before version 14, has none, and TypeError where it, before 17, leaves no
    frame on the device."""
    from av.codec.hwaccel import HWAccel

    return HWAccel("cuda", str(device.index or 0), allow_software_fallback=False, is_hw_owned=True)


def rgb(frame: av.VideoFrame, height: int, width: int) -> Tensor:
    """An NV12 frame, or P010, as RGB (height, width, 3) uint8 on its device, scaled by the means of areas."""
    # As capsules: torch would name a CUDA stream, which PyAV refuses. FFmpeg decodes on the default one, as torch does.
    bright, colour = (dlpack.from_dlpack(plane.__dlpack__()) for plane in frame.planes[:2])
    full = frame.color_range == FULL
    return from_planes(bright, colour, height, width, RED_BLUE.get(frame.colorspace, USUAL), full)


def areas(size: int, count: int, device: torch.device) -> Tensor:
    """Weights (count, size) with which a row of `size` pixels is resized to `count`: what each has of each's length."""
    edge, pixel = torch.arange(count + 1, device=device) * (size / count), torch.arange(size, device=device)
    shared = torch.minimum(edge[1:, None], pixel + 1) - torch.maximum(edge[:-1, None], pixel)
    return shared.clamp(min=0) * (count / size)


def resized(plane: Tensor, height: int, width: int) -> Tensor:
    """A plane (H, W) float32 at (height, width)."""
    if plane.shape[0] != height:
        plane = areas(plane.shape[0], height, plane.device) @ plane
    return plane if plane.shape[1] == width else plane @ areas(plane.shape[1], width, plane.device).T


def from_planes(
    bright: Tensor, colour: Tensor, height: int, width: int, red_blue: tuple[float, float], full: bool
) -> Tensor:
    """RGB (height, width, 3) uint8 of brightness (H, W) and differences (H/2, W/2, 2), uint8 or uint16; full: whether
    they fill their range, or 219 and 224 of 255."""
    unit = 256 if bright.dtype == torch.uint16 else 1
    y, u, v = (resized(plane.float() / unit, height, width) for plane in (bright, *colour.unbind(2)))
    y = y if full else (y - 16) * (255 / 219)
    u, v = (plane - 128 if full else (plane - 128) * (255 / 224) for plane in (u, v))
    red, blue = red_blue
    green = 1 - red - blue
    pixels = torch.stack([
        y + 2 * (1 - red) * v,
        y - 2 * blue * (1 - blue) / green * u - 2 * red * (1 - red) / green * v,
        y + 2 * (1 - blue) * u,
    ], dim=2)  # fmt: skip
    return pixels.clamp(0, 255).to(torch.uint8)
