"""Faces over time: boxes linked into tracks, one person followed, square crops cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from extract.detection import Detected, overlap

TRACK_MEMORY = 1.0  # s a track may go unseen before it ends
LINK_OVERLAP = 0.3  # intersection over union that makes two boxes one person


@dataclass
class Track:
    """One face followed over time: frame index, box and confidence per sighting."""

    frame: list[int] = field(default_factory=list)
    box: list[np.ndarray] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)

    def add(self, frame: int, box: np.ndarray, confidence: float) -> None:
        self.frame.append(frame)
        self.box.append(box)
        self.confidence.append(confidence)

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
            for t, f in zip(
                *np.unravel_index(np.argsort(-score, axis=None, kind="stable"), score.shape), strict=True
            ):
                if score[t, f] < LINK_OVERLAP:
                    break
                if f in unlinked and live[t].frame[-1] != index:
                    live[t].add(index, faces.boxes[f], faces.confidence[f])
                    unlinked.discard(f)
        for f in sorted(unlinked):
            track = Track()
            track.add(index, faces.boxes[f], faces.confidence[f])
            tracks.append(track)
            live.append(track)
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
        sightings = [
            Track([i], [b], [c]) for t in tracks for i, b, c in zip(t.frame, t.box, t.confidence, strict=True)
        ]
        tracks = sightings
    for track in sorted(tracks, key=lambda t: -t.prominence):
        span = np.arange(track.frame[0], track.frame[-1] + 1)
        if np.isnan(box[span, 0]).all():
            box[track.frame] = track.box
            confidence[track.frame] = track.confidence
    return box, confidence


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


def upload(picture: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The picture on the device; to a GPU from pinned memory, so that the copy waits for nothing."""
    return picture if device.type == "cpu" else picture.pin_memory().to(device, non_blocking=True)


def resize(picture: torch.Tensor, size: int) -> torch.Tensor:
    """(H, W, 3) uint8 → (3, size, size) float32 in 0–255, bilinear with antialiasing.

    In float, because torch's integer path rounds differently for different memory layouts.
    """
    return interpolate(
        picture.permute(2, 0, 1)[None].float(),
        (size, size),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0]


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
