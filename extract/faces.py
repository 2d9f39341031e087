"""Faces: found by MTCNN in every n-th frame, linked over time, one person followed, square crops cut.

    frames ─ FaceDetector ─ Sightings ─ link, follow ─ Person ─ cut_squares

Frames are scaled down to `Detection.short_side` before faces are looked for; boxes are then in pixels of the scaled
frame. Between two looks boxes are carried on, with a second look where that would not do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch.nn.functional import interpolate

from affuse.config import Settings
from affuse.extract.media import Frames

MIN_FACE_PIXELS = 20  # MTCNN's own lower bound
STEADY = 0.6  # intersection over union at which a face has moved evenly from one look to the next
CUT = 25.0  # mean change of a pixel between neighbouring frames, of 255, that counts as a scene cut
Face = tuple[int, torch.Tensor]  # index of the frame, and the face's square (side, side, 3) uint8
COARSE = 8  # every how many pixels frames are compared at
TRACK_MEMORY = 1.0  # s a track may go unseen before it ends
LINK_OVERLAP = 0.3  # intersection over union that makes two boxes one person


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


@dataclass(frozen=True)
class Sightings:
    """Faces of consecutive frames: time (n,), seconds; size (n, 2), width and height of each; scaled (2,), the size at
    which they were looked for."""

    time: np.ndarray
    size: np.ndarray
    scaled: np.ndarray
    faces: list[Detected]


@dataclass(frozen=True)
class Person:
    """One person throughout a video: time (T,) of each frame, seconds; box (T, 4) float32 in square pixels of that
    frame, and confidence (T,) float32; NaN and 0 where unseen."""

    time: np.ndarray
    box: np.ndarray
    confidence: np.ndarray

    @classmethod
    def unseen(cls, time: np.ndarray) -> Person:
        return cls(time, np.full((len(time), 4), np.nan, np.float32), np.zeros(len(time), np.float32))

    @property
    def seen(self) -> np.ndarray:
        """Indices of the frames with a face."""
        return np.flatnonzero(self.confidence)


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
                part = (time - time[a]) / (time[b] - time[a])
                faces |= {i: between(faces[a], faces[b], pairs, part[i]) for i in range(a + 1, b)}
        if lost:
            faces |= zip(lost, self.look(pixels[lost]), strict=True)
        return [faces[i] for i in range(len(pixels))]

    def watch(self, frames: Frames) -> Sightings:
        """The same of frames as they were decoded."""
        scaled = np.array(frames.pixels.shape[2:0:-1], float)
        return Sightings(frames.time, frames.size, scaled, self(frames.pixels, frames.time))

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
        (1 - part) * one.boxes + part * other.boxes[pairs], (1 - part) * one.confidence + part * other.confidence[pairs]
    )


@dataclass
class Track:
    """One face followed over time: frame index, box and confidence per sighting."""

    frame: list[int]
    box: list[np.ndarray]
    confidence: list[float]

    @property
    def prominence(self) -> float:
        """Summed side length: long and near beats brief and far."""
        boxes = np.array(self.box)
        return float(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).clip(0)).sum())

    @property
    def centre(self) -> float:
        return float(np.mean([(box[0] + box[2]) / 2 for box in self.box]))


def link(detected: list[Detected], time: np.ndarray) -> list[Track]:
    """Link boxes of consecutive frames into tracks, best overlap first; each box joins at most one track."""
    tracks: list[Track] = []
    live: list[Track] = []
    for index, faces in enumerate(detected):
        live = [t for t in live if time[index] - time[t.frame[-1]] <= TRACK_MEMORY]
        unlinked = set(range(len(faces.boxes)))
        if live and unlinked:
            score = overlap(np.array([t.box[-1] for t in live]), faces.boxes)
            order = np.argsort(-score, axis=None, kind="stable")
            for t, f in zip(*np.unravel_index(order, score.shape), strict=True):
                if score[t, f] < LINK_OVERLAP:
                    break
                if f in unlinked and live[t].frame[-1] != index:
                    live[t].frame.append(index)
                    live[t].box.append(faces.boxes[f])
                    live[t].confidence.append(faces.confidence[f])
                    unlinked.discard(f)
        new = [Track([index], [faces.boxes[f]], [faces.confidence[f]]) for f in sorted(unlinked)]
        tracks += new
        live += new
    return tracks


def follow(tracks: list[Track], frames: int, width: int, face: str = "main") -> tuple[np.ndarray, np.ndarray]:
    """Boxes (frames, 4) float32 and confidence (frames,) float32 of one person; NaN and 0 where unseen.

    main: the most prominent track, continued by the next ones that begin after it ends or end before it begins:
    one person whose track broke. Someone who appears beside it is never taken for it.
    left, right: the same among the tracks whose mean centre lies in that half of the frame.
    largest: in each frame the largest face.
    """
    box = np.full((frames, 4), np.nan, np.float32)
    confidence = np.zeros(frames, np.float32)
    if face in ("left", "right"):
        tracks = [t for t in tracks if (t.centre < width / 2) == (face == "left")]
    if face == "largest":
        tracks = [Track([i], [b], [c]) for t in tracks for i, b, c in zip(t.frame, t.box, t.confidence, strict=True)]
    for track in sorted(tracks, key=lambda t: -t.prominence):
        span = np.arange(track.frame[0], track.frame[-1] + 1)
        if np.isnan(box[span, 0]).all():
            box[track.frame] = track.box
            confidence[track.frame] = track.confidence
    return box, confidence


def find_person(sightings: Iterable[Sightings], face: str) -> Person:
    """The one person whom `follow` chooses of all these frames. Where their size changes midway, faces are linked in
    pixels of the first scaled frame, and each box is scaled to its own frame."""
    sightings = list(sightings)
    if not sightings:
        return Person.unseen(np.zeros(0))
    first = sightings[0].scaled
    faces = [found.scaled(first / part.scaled) for part in sightings for found in part.faces]
    time, size = (np.concatenate([getattr(part, name) for part in sightings]) for name in ("time", "size"))
    box, confidence = follow(link(faces, time), len(time), first[0], face)
    return Person(time, box * np.tile(size / first, 2).astype(np.float32), confidence)


def square(box: np.ndarray, margin: float) -> tuple[int, int, int]:
    """The square around a box, its side the longer one extended by `margin`: left, top, side in whole pixels."""
    left, top, right, bottom = (float(v) for v in box)
    side = max(2, round(max(right - left, bottom - top) * (1 + margin)))
    return round((left + right - side) / 2), round((top + bottom - side) / 2), side


def crop(pixels: np.ndarray, box: np.ndarray, margin: float) -> torch.Tensor:
    """The face's square, (side, side, 3) uint8. Parts of it outside the frame repeat the frame's edge."""
    left, top, side = square(box, margin)
    height, width = pixels.shape[:2]
    if 0 <= top <= height - side and 0 <= left <= width - side:
        return torch.from_numpy(pixels[top : top + side, left : left + side].copy())
    rows = np.arange(top, top + side).clip(0, height - 1)
    columns = np.arange(left, left + side).clip(0, width - 1)
    return torch.from_numpy(pixels[rows[:, None], columns[None, :]])


def cut_squares(frames: Iterable[Frames], person: Person, margin: float) -> Iterator[Face]:
    """The face of each frame in which the person is seen; `frames` are those alone."""
    pictures = (pixels for chunk in frames for pixels in chunk.pixels)
    for index, pixels in zip(person.seen, pictures, strict=False):
        yield index, crop(pixels, person.box[index], margin)


def upload(picture: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The picture on the device; to a GPU from pinned memory, so that the copy waits for nothing."""
    return picture if device.type == "cpu" else picture.pin_memory().to(device, non_blocking=True)


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
