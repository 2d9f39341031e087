"""The demo's face: one photographed face, warped so that mouth corners and brows follow a signal.

The photograph is scikit-image's `astronaut` (NASA, public domain), which lies in the package itself. A warp
is a sum of smooth bumps around landmarks of that photograph; a look (mirrored, tinted, scaled, another
background) makes another "speaker" of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from affuse.errors import AffuseError

BATCH = 32  # frames rendered at once
CENTRE = (225.0, 133.0)  # pixels of the photograph: x and y of the point shown in the middle of the frame
NEUTRAL = 0.45  # the expression, on the scale of -1 to 1, that the photograph itself shows
SHOWN = 300  # rows of the photograph that any frame reaches
NOISE = 2.5  # grey levels, standard deviation of the sensor noise

# Landmarks of the photograph: x, y, the bump's radii along x and y (all in pixels), and how far it moves
# (x, y in pixels) for one unit of expression above neutral, and for a mouth opened all the way.
LANDMARKS = np.array(
    [
        # x      y      rx    ry    smile x  smile y  open x  open y
        [203.5, 140.5, 9.0, 8.0, -2.4, -6.0, 1.0, 0.5],  # corner of the mouth
        [245.0, 141.5, 9.0, 8.0, 2.4, -6.0, -1.0, 0.5],  # the other
        [225.0, 153.0, 14.0, 6.0, 0.0, 2.5, 0.0, 3.0],  # lower lip
        [225.0, 140.0, 12.0, 4.0, 0.0, -0.6, 0.0, -0.5],  # upper lip
        [224.0, 174.0, 22.0, 12.0, 0.0, 0.0, 0.0, 4.0],  # chin
        [200.0, 124.0, 12.0, 10.0, 0.0, -1.6, 0.0, 0.0],  # cheek
        [249.0, 126.0, 12.0, 10.0, 0.0, -1.6, 0.0, 0.0],  # the other
        [213.5, 90.5, 9.0, 7.0, -1.8, -4.0, 0.0, 0.0],  # inner end of a brow
        [239.0, 92.0, 9.0, 7.0, 1.8, -4.0, 0.0, 0.0],  # the other
        [202.5, 90.0, 8.0, 7.0, 0.0, -2.2, 0.0, 0.0],  # outer end of a brow
        [251.5, 93.0, 8.0, 7.0, 0.0, -2.2, 0.0, 0.0],  # the other
    ],
    dtype=np.float32,
)
HEAD = ((226.0, 96.0), (78.0, 84.0))  # centre and radii of an ellipse around the hair
BODY = ((224.0, 295.0), (155.0, 148.0))  # and around the suit


@dataclass(frozen=True)
class Look:
    """How a speaker differs from the photograph.

    scale: frame pixels per pixel of the photograph, for a frame 240 high. tint: gains of red, green, blue.
    background: gains of red, green, blue behind the person. mirrored: left and right exchanged.
    """

    mirrored: bool = False
    scale: float = 1.2
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Motion:
    """What moves, per frame, each (T,): expression in [-1, 1], opening of the mouth in [0, 1],
    shift along x and y (pixels of the photograph), roll (radians), brightness (gain)."""

    expression: np.ndarray
    opening: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    roll: np.ndarray
    brightness: np.ndarray

    def batches(self) -> Iterator[list[Tensor]]:
        """The six signals in order, float32, BATCH frames at a time."""
        signals = [torch.from_numpy(np.asarray(getattr(self, f.name), np.float32)) for f in fields(self)]
        return zip(*(signal.split(BATCH) for signal in signals), strict=True)


@cache
def photograph() -> Tensor:
    """The photograph's upper part (3, SHOWN, 512) float32, 0–255.

    Raises AffuseError where scikit-image, of the extra `demo`, is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise AffuseError(
            "The demo's face needs scikit-image, which is not installed: pip install 'affuse[demo]'"
        ) from None
    return torch.from_numpy(data.astronaut()[:SHOWN]).permute(2, 0, 1).float()


def person_mask(height: int, width: int) -> Tensor:
    """How much of a pixel of the photograph is the person: (H, W) in [0, 1], soft at the edge."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    distance = [torch.hypot((x - cx) / rx, (y - cy) / ry) for (cx, cy), (rx, ry) in (HEAD, BODY)]
    return torch.sigmoid(12 * (1 - torch.minimum(*distance)))


def dress(look: Look) -> Tensor:
    """The photograph as this speaker, before any motion: (3, SHOWN, 512)."""
    picture = photograph()
    person = person_mask(*picture.shape[1:])
    gain = [torch.tensor(g, dtype=torch.float32)[:, None, None] for g in (look.tint, look.background)]
    return picture * (gain[0] * person + gain[1] * (1 - person))


def displacement(expression: Tensor, opening: Tensor, height: int, width: int) -> Tensor:
    """How far the photograph's points have moved: (T, 2, height // 2, width // 2) in pixels, x and y.

    Bumps are smooth: every other pixel is enough, and four times as quick.
    """
    marks = torch.from_numpy(LANDMARKS)
    y, x = (torch.linspace(0, n - 1, n // 2) for n in (height, width))
    across = torch.exp(-0.5 * ((x - marks[:, 0:1]) / marks[:, 2:3]) ** 2)  # (K, W)
    down = torch.exp(-0.5 * ((y - marks[:, 1:2]) / marks[:, 3:4]) ** 2)  # (K, H)
    moved = (expression - NEUTRAL)[:, None, None] * marks[:, 4:6] + opening[:, None, None] * marks[:, 6:8]
    return torch.einsum("tkc,kh,kw->tchw", moved, down, across)


def render(look: Look, motion: Motion, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """The frames of a video: (T, height, width, 3) uint8, RGB; `size` is (width, height)."""
    picture = dress(look)
    clean = np.concatenate([_render(picture, look, signals, size) for signals in motion.batches()])
    noise = generator.standard_normal((1, *clean.shape[1:]), np.float32)
    out = np.empty(clean.shape, np.uint8)
    for i, frame in enumerate(clean):
        # One noise field, shifted at random: new noise in every frame at a tenth of the cost of drawing it.
        shift = tuple(generator.integers(0, clean.shape[1:3]))
        out[i] = (frame + NOISE * np.roll(noise[0], shift, axis=(0, 1))).clip(0, 255).round()
    return out


def _render(picture: Tensor, look: Look, signals: list[Tensor], size: tuple[int, int]) -> np.ndarray:
    """A batch of frames without noise: (T, H, W, 3) float32, 0–255; `signals` as Motion orders them."""
    expression, opening, *others = signals
    shift_x, shift_y, roll, brightness = (signal[:, None, None] for signal in others)
    width, height = size
    scale = look.scale * height / 240
    y, x = torch.meshgrid(
        (torch.arange(height) - (height - 1) / 2) / scale,
        (torch.arange(width) - (width - 1) / 2) / scale,
        indexing="ij",
    )
    if look.mirrored:
        x = -x
    at_x = CENTRE[0] + torch.cos(roll) * x - torch.sin(roll) * y - shift_x
    at_y = CENTRE[1] + torch.sin(roll) * x + torch.cos(roll) * y - shift_y
    # Backwards: a frame's pixel shows the photograph's point that moved there.
    rows, columns = picture.shape[1:]
    half = torch.tensor([(columns - 1) / 2, (rows - 1) / 2])
    at = torch.stack([at_x, at_y], dim=-1)  # (T, H, W, 2)
    moved = displacement(expression, opening, rows, columns)
    moved = grid_sample(moved, at / half - 1, align_corners=True)
    at = at - moved.permute(0, 2, 3, 1)
    shown = grid_sample(
        picture.expand(len(at), -1, -1, -1), at / half - 1, padding_mode="reflection", align_corners=True
    )
    return (shown * brightness[:, None]).permute(0, 2, 3, 1).numpy()
