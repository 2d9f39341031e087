"""Films of several people made on the fly: who is there, where and when, is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from media import photograph, tone, write_media

SIZE = (320, 240)  # width, height
FPS = 10


@cache
def portrait(who: str) -> Image.Image:
    """ "ann" is scikit-image's astronaut; the others, by number, are of its subset of Labeled Faces in the Wild."""
    if who == "ann":
        return Image.fromarray(photograph()[20:220, 120:320])
    from skimage.data import lfw_subset

    return Image.fromarray((lfw_subset()[{"ben": 0, "cid": 17}[who]] * 255).astype(np.uint8)).convert("RGB")


@dataclass(frozen=True)
class Part:
    """Somebody in a scene: from one place of the picture's middle, in pixels, to another, `side` pixels wide."""

    who: str
    begin: float
    end: float
    side: int = 120
    top: int = 60


LEFT, RIGHT = Part("ann", 90, 90), Part("ben", 230, 230, 60)


def scene(seconds: float, *parts: Part, level: int = 90) -> np.ndarray:
    """(n, H, W, 3) uint8; who comes later stands before the others."""
    frames = np.full((round(seconds * FPS), SIZE[1], SIZE[0], 3), level, np.uint8)
    for part in parts:
        picture = np.asarray(portrait(part.who).resize((part.side, part.side), Image.BICUBIC))
        for i, frame in enumerate(frames):
            left = round(part.begin + (part.end - part.begin) * i / max(1, len(frames) - 1) - part.side / 2)
            shown = slice(max(0, left), min(SIZE[0], left + part.side))
            lit = (picture * (0.96 + 0.04 * (i % 2))).astype(
                np.uint8
            )  # nobody stands as still as a photograph
            frame[part.top : part.top + part.side, shown] = lit[:, shown.start - left : shown.stop - left]
    return frames


def film(path: Path, *scenes: np.ndarray) -> Path:
    frames = np.concatenate(scenes)
    return write_media(path, frames, FPS, samples=tone(len(frames) / FPS))
