"""Finding faces: MTCNN on every n-th frame, boxes carried between them, and a second look where that would not do.

Frames are scaled down to `Detection.short_side` before; boxes are in pixels of the scaled frame.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from features.config import Settings

MIN_FACE_PIXELS = 20  # MTCNN's own lower bound
STEADY = (
    0.6  # intersection over union at which a face counts as having moved evenly from one look to the next
)
CUT = 25.0  # mean change of a pixel between neighbouring frames, of 255, that counts as a scene cut
COARSE = 8  # every how many pixels frames are compared at


class Detection(Settings):
    """How faces are found. Lengths in pixels of the scaled frame, `min_face` as a part of its short side.

    every: look for faces in every n-th frame only. Between two looks boxes are interpolated, unless a face came,
    went or jumped or the scene was cut: then every frame between is looked at.
    """

    short_side: int = Field(360, ge=2 * MIN_FACE_PIXELS)
    min_face: float = Field(0.1, ge=0, lt=1)
    every: int = Field(4, ge=1, le=32)
    margin: float = Field(0.3, ge=0, le=10)
    face: Literal["main", "left", "right", "largest"] = "main"


@dataclass(frozen=True)
class Detected:
    """Faces of one frame: boxes (k, 4) float64, left, top, right, bottom; confidence (k,) float64."""

    boxes: np.ndarray
    confidence: np.ndarray

    def scaled(self, factor: np.ndarray) -> Detected:
        """The same faces in a frame `factor` (2,) times as wide and high."""
        return Detected(self.boxes * np.tile(factor, 2), self.confidence)


NOBODY = Detected(np.zeros((0, 4)), np.zeros(0))


class FaceDetector:
    """MTCNN (Zhang et al. 2016) from facenet-pytorch; the weights come with the package."""

    def __init__(self, settings: Detection, device: torch.device):
        from facenet_pytorch import MTCNN

        self.settings = settings
        self.mtcnn = MTCNN(keep_all=True, device=device).eval()

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
                faces |= {
                    i: between(faces[a], faces[b], pairs, _part(time, a, i, b)) for i in range(a + 1, b)
                }
        if lost:
            faces |= zip(lost, self.look(pixels[lost]), strict=True)
        return [faces[i] for i in range(len(pixels))]

    @torch.inference_mode()
    def look(self, pixels: np.ndarray) -> list[Detected]:
        """Faces of each frame on its own."""
        short = min(pixels.shape[1:3])
        smallest = max(MIN_FACE_PIXELS, round(self.settings.min_face * short))
        if short <= smallest:  # the detector's pyramid would be empty
            return [NOBODY] * len(pixels)
        mtcnn = copy(self.mtcnn)  # shares the networks; other threads look for faces of other sizes
        mtcnn.min_face_size = smallest
        boxes, confidence = mtcnn.detect(torch.from_numpy(np.ascontiguousarray(pixels)))
        return [
            NOBODY if box is None else Detected(np.array(box, np.float64), np.array(score, np.float64))
            for box, score in zip(boxes, confidence, strict=True)
        ]


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
        (1 - part) * one.boxes + part * other.boxes[pairs],
        (1 - part) * one.confidence + part * other.confidence[pairs],
    )


def _part(time: np.ndarray, a: int, i: int, b: int) -> float:
    return float((time[i] - time[a]) / (time[b] - time[a]))
