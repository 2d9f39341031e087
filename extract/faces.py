"""Faces: found in every n-th frame.

Frames are scaled down to `Detection.short_side` before faces are looked for; boxes are then in pixels of the scaled
frame. Between two looks boxes are carried on, with a second look where that would not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from affuse.config import Settings
from affuse.extract.media import Frames

MIN_FACE_PIXELS = 20  # MTCNN's own lower bound
STEADY = 0.6  # intersection over union at which a face has moved evenly from one look to the next
CUT = 25.0  # mean change of a pixel between neighbouring frames, of 255, that counts as a scene cut
COARSE = 8  # every how many pixels frames are compared at
GRID = 12  # places, in each direction, at which neighbouring pictures of a face are compared


class Detection(Settings):
    """How faces are found, and whose are kept."""

    short_side: int = Field(360, ge=2 * MIN_FACE_PIXELS)
    """Pixels of a frame's short side when faces are looked for in it; larger frames are scaled down to it."""
    min_face: float = Field(0.1, ge=0, lt=1)
    """The smallest face that is looked for, as a part of the scaled frame's short side."""
    every: int = Field(4, ge=1, le=32)
    """Look for faces in every n-th frame. Boxes between are interpolated, unless a face came, went or jumped or the
    scene was cut: then every frame between is looked at."""
    margin: float = Field(0.3, ge=0, le=10)
    """By how much a crop's side is longer than the longer side of the face's box, as a part of that."""
    face: Literal["main", "left", "right", "largest", "all"] = "main"
    """Whom to follow: main, the most prominent person; left, right, the one in that half of the frame; largest, in each
    frame the largest face, whoever it is; all, every person a record of their own."""
    least: float = Field(0.5, ge=0)
    """Seconds that a face is followed before it starts a person; a fifth of the video is enough, too."""
    likeness: float = Field(0.9, ge=-1, le=1)
    """Cosine of two faces' embeddings from which on they can be the same person's; as much as a tenth of the person's
    own faces have with their mean is enough, too."""


@dataclass(frozen=True)
class Detected:
    """Faces of one frame: boxes (k, 4) float64, left, top, right, bottom; confidence (k,) float64."""

    boxes: np.ndarray
    confidence: np.ndarray

    def scaled(self, factor: np.ndarray) -> Detected:
        """The same faces in a frame `factor` (2,) times as wide and high."""
        return Detected(self.boxes * np.tile(factor, 2), self.confidence)


NOBODY = Detected(np.zeros((0, 4)), np.zeros(0))


@dataclass(frozen=True)
class Sightings:
    """Faces of consecutive frames: time (n,), seconds; size (n, 2), width and height of each; scaled (2,), the size at
    which they were looked for; patches, of each frame's faces (k, GRID²) uint8, their picture in few pixels."""

    time: np.ndarray
    size: np.ndarray
    scaled: np.ndarray
    faces: list[Detected]
    patches: list[np.ndarray]


class FaceDetector:
    """MTCNN by its networks in facenet-pytorch; the weights come with the package."""

    def __init__(self, settings: Detection, device: torch.device):
        from affuse.extract.mtcnn import ROOM, Detector  # with torchvision, slow to import

        self.settings = settings
        self.mtcnn = Detector(device, ROOM if device.type == "cuda" else None)

    def __call__(self, pixels: np.ndarray, time: np.ndarray) -> list[Detected]:
        """Faces of consecutive frames, pixels (n, H, W, 3) uint8 at time (n,) in seconds, in pixels of these frames.

        The first and the last frame are always looked at.
        """
        looks = sorted({*range(0, len(pixels), self.settings.every), len(pixels) - 1})
        faces = dict(zip(looks, self.look(pixels[looks]), strict=True))
        lost = []
        for a, b in pairwise(looks):
            pairs = None if cut(pixels[a : b + 1]) else same_faces(faces[a], faces[b])
            if pairs is None:
                lost += range(a + 1, b)
            else:
                part = (time - time[a]) / (time[b] - time[a])
                faces |= {i: between(faces[a], faces[b], pairs, part[i]) for i in range(a + 1, b)}
        if lost:
            faces |= zip(lost, self.look(pixels[lost]), strict=True)
        return [faces[i] for i in range(len(pixels))]

    def watch(self, frames: Frames) -> Sightings:
        """The same of frames as they were decoded."""
        scaled, faces = np.array(frames.pixels.shape[2:0:-1], float), self(frames.pixels, frames.time)
        patches = [patch(picture, found.boxes) for picture, found in zip(frames.pixels, faces, strict=True)]
        return Sightings(frames.time, frames.size, scaled, faces, patches)

    def look(self, pixels: np.ndarray) -> list[Detected]:
        """Faces of each frame on its own."""
        short = min(pixels.shape[1:3])
        smallest = max(MIN_FACE_PIXELS, round(self.settings.min_face * short))
        if short <= smallest:  # nothing is smaller than the frame
            return [NOBODY] * len(pixels)
        found = self.mtcnn(torch.from_numpy(np.ascontiguousarray(pixels)), smallest)
        return [Detected(boxes.astype(float), score.astype(float)) for boxes, score in found]


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod((high - low).clip(0), axis=2)
    area = [np.prod((x[:, 2:] - x[:, :2]).clip(0), axis=1) for x in (a, b)]
    return both / np.maximum(area[0][:, None] + area[1][None, :] - both, 1e-9)


def cut(pixels: np.ndarray) -> bool:
    """Whether the scene is cut somewhere in these consecutive frames (n, H, W, 3)."""
    coarse = pixels[:, ::COARSE, ::COARSE].astype(np.int16)
    return bool((np.abs(np.diff(coarse, axis=0)).mean(axis=(1, 2, 3)) > CUT).any())


def patch(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The green of the picture (H, W, 3) at GRID × GRID places of each box (k, 4): (k, GRID²) uint8."""
    steps = (np.arange(GRID) + 0.5) / GRID
    x, y = (boxes[:, i, None] + (boxes[:, i + 2] - boxes[:, i])[:, None] * steps for i in (0, 1))  # (k, GRID)
    rows, columns = (v.round().astype(int).clip(0, size - 1) for v, size in ((y, len(pixels)), (x, pixels.shape[1])))
    return pixels[rows[:, :, None], columns[:, None, :], 1].reshape(len(boxes), GRID**2)


def same_faces(one: Detected, other: Detected) -> np.ndarray | None:
    """For each face of `one` its number in `other`: (k,). None where a face came, went, or moved too far to say."""
    if len(one.boxes) != len(other.boxes):
        return None
    if not len(one.boxes):
        return np.zeros(0, int)
    score = overlap(one.boxes, other.boxes)
    best = score.argmax(axis=1)
    steady = len(set(best)) == len(best) and (score.max(axis=1) >= STEADY).all()
    return best if steady else None


def between(one: Detected, other: Detected, pairs: np.ndarray, part: float) -> Detected:
    """Faces `part` of the way, 0 to 1, from `one` to `other`."""
    return Detected(
        (1 - part) * one.boxes + part * other.boxes[pairs], (1 - part) * one.confidence + part * other.confidence[pairs]
    )
