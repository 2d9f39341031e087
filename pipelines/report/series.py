"""Numbers as a page takes them: curves thinned without losing a peak, spans where something is missing, rounded."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

MOST = 4000  # moments of a curve, about: what a browser draws at once, and more than a screen has columns
TOTAL = 400_000  # of all videos of a page together, about
LEAST = 500  # of each of them
BOXES = 5.0  # face boxes a second, between which the page goes on a line


def thin(columns: np.ndarray, most: int = MOST) -> np.ndarray:
    """Which rows of columns (T, C) to draw, rising: all of up to `most`; of more, of as many equal stretches as it
    takes the first and last row, and of every column the lowest and the highest value in it. NaN is neither."""
    rows, width = columns.shape
    if rows <= most:
        return np.arange(rows)
    edges = np.linspace(0, rows, max(most // (2 * max(width, 1)), 1) + 1).astype(int)
    kept = {0, rows - 1}
    for low, high in pairwise(edges):
        stretch = columns[low:high]
        for values, extreme in ((np.where(np.isnan(stretch), np.inf, stretch), np.argmin),
                                (np.where(np.isnan(stretch), -np.inf, stretch), np.argmax)):  # fmt: skip
            kept |= {low + int(row) for row in extreme(values, axis=0)}
    return np.array(sorted(kept))


def moments_each(videos: int) -> int:
    """How many moments are drawn of each of so many videos."""
    return max(min(MOST, TOTAL // max(videos, 1)), LEAST)


def gaps(time: np.ndarray, there: np.ndarray, end: float) -> list[list[float]]:
    """From when to when, seconds, something is not there (T,) bool: each frame at `time` (T,) lasts until the next, the
    last until `end`."""
    change = np.flatnonzero(np.diff(np.concatenate([[True], there, [True]])))
    edge = np.append(time, max(end, time[-1] if len(time) else end))
    return [[rounded(edge[a]), rounded(edge[b])] for a, b in zip(change[::2], change[1::2], strict=True)]


def boxes(time: np.ndarray, valid: np.ndarray, box: np.ndarray) -> list[list]:
    """[seconds, left, top, right, bottom] of a face in square pixels, or [seconds] without one: `BOXES` a second, and
    every frame around which a face comes or goes."""
    if not len(time):
        return []
    turns = np.flatnonzero(np.diff(valid))
    stride = np.unique(np.searchsorted(time, np.arange(time[0], time[-1], 1 / BOXES)))
    kept = np.unique(np.concatenate([stride, turns, turns + 1, [len(time) - 1]]))
    return [[rounded(time[i]), *([round(float(edge)) for edge in box[i]] if valid[i] else [])] for i in kept]


def rounded(value: float, digits: int = 3) -> float | None:
    """A number with few digits, None for NaN, which JSON does not have."""
    return round(float(value), digits) if np.isfinite(value) else None


def plain(values: Iterable[float], digits: int = 3) -> list[float | None]:
    """`rounded` of each."""
    return [rounded(value, digits) for value in values]
