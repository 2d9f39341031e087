"""Laying a video's features on any time base: which row, which word belongs to each moment, if any; and on an even
clock of another rate: which rows stand for each moment together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from affuse.errors import AffuseError, UsageError
from affuse.features.parts import MODALITIES, Parts, TextFeatures, checked_modalities

LONE_ROW = 0.5  # seconds around a single row in which it stands for the video
SLACK = 1e-6  # seconds; times that differ by rounding still meet
ALIKE = 0.01  # share by which two frame rates may differ and still be one, as 29.97 and 30 are
LONGEST = 24 * 3600  # seconds; a clock that goes on for longer is in other units, or begins elsewhere
BLOCK = 2**8  # moments whose rows are averaged at once


def align(
    video: Parts, time: np.ndarray, modalities: Iterable[str] = MODALITIES, widths: Mapping[str, int] | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features of `video` at the moments `time` (T,), seconds: by modality, embedding (T, D) float16 and
    valid (T,) bool.

    Visual and audio: the row nearest in time, the earlier of two equally near, if it is no further away than
    half the median spacing of the rows (half a second where there is one row). Visual rows without a face are
    not valid. Text: the word with start < t < end; of several, the one that starts last. Rows that are not
    valid are zeros, as is all of a modality that the video does not have.

    widths: D of each modality, for those that this video lacks; by default the width of its own empty array.
    Raises AffuseError where features have another width than `widths` says, or it does not know the modality,
    UsageError for arguments of another type.

    >>> video = FeatureStore("store")["clip01"]
    >>> embedding, valid = align(video, np.arange(0, 1.6, 0.1), ["audio"])["audio"]
    >>> embedding.shape, embedding.dtype.name, int(valid.sum())
    ((16, 8), 'float16', 16)
    """
    if not isinstance(video, Parts):
        raise UsageError(f'align takes the features of a video, such as store["clip01"], not {video!r}.')
    try:
        time = np.asarray(time, np.float64)
    except (TypeError, ValueError):
        time = np.zeros(())
    if time.ndim != 1:
        raise UsageError("align takes `time` as a row of numbers, the moments in seconds.")
    aligned = {}
    for modality in checked_modalities(modalities):
        rows, own = getattr(video, modality).embedding.shape
        width = checked_width(video.id, modality, rows, own, widths)
        embedding = np.zeros((len(time), width), np.float16)
        row, valid = rows_at(video, modality, time)
        if valid.any():
            embedding[valid] = getattr(video, modality).embedding[row[valid]]
        aligned[modality] = embedding, valid
    return aligned


def rows_at(video: Parts, modality: str, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index (T,) of the modality's row at each moment, as `align` lays it, and whether there is one (T,) bool."""
    part = getattr(video, modality)
    if not len(part.embedding):
        return np.zeros(len(time), int), np.zeros(len(time), bool)
    row, valid = _word_at(part, time) if modality == "text" else _nearest(part.time, time)
    return row, valid & part.valid[row] if modality == "visual" else valid


def checked_width(video_id: str, modality: str, rows: int, own: int, widths: Mapping[str, int] | None = None) -> int:
    """Width of a modality's embeddings, of which a video has `rows`, `own` wide. Raises as `align` does."""
    if widths is None:
        return own
    if modality not in widths:
        raise AffuseError(
            f"There are no {modality} features here, only {', '.join(widths)}. Leave {modality} out of the "
            "modalities, or extract again with it."
        )
    if rows and own != widths[modality]:
        raise AffuseError(
            f"The {modality} features of video {video_id!r} are {own} wide where {widths[modality]} are "
            "expected: they were made by another backbone. Extract it again with the settings of the others."
        )
    return widths[modality]


def nearest_row(rows: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Index (T,) of the row nearest to each time (T,), the earlier of two equally near. `rows` (N,), one at least,
    never fall."""
    after = np.searchsorted(rows, time).clip(max=len(rows) - 1)
    before = (after - 1).clip(min=0)
    earlier = np.abs(time - rows[before]) <= np.abs(time - rows[after])
    # Of rows with the same time, searchsorted finds the first.
    return np.searchsorted(rows, np.where(earlier, rows[before], rows[after]))


def _nearest(rows: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `nearest_row` gives, and whether that row is near enough (T,)."""
    row = nearest_row(rows, time)
    reach = np.median(np.diff(rows)) / 2 if len(rows) > 1 else LONE_ROW
    return row, np.abs(time - rows[row]) <= reach + SLACK


def _word_at(text: TextFeatures, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index (T,) of the word spoken at each time, and whether there is one."""
    clock = np.argsort(time, kind="stable")
    first = np.searchsorted(time[clock], text.start, side="right")
    stop = np.searchsorted(time[clock], text.end, side="left")
    spoken = np.full(len(time), -1)
    for word in np.argsort(text.start, kind="stable"):  # where words overlap, the later start paints over
        spoken[first[word] : stop[word]] = word
    row = np.empty_like(spoken)
    row[clock] = spoken
    return row, row >= 0


# ---- even clocks


def ends(time: np.ndarray) -> float:
    """Seconds at which the last of the frames at `time` (T,) ends, each as long as most are; 0 where there is none."""
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    return float(time[-1]) + step if len(time) else 0.0


def frame_rate(time: np.ndarray) -> float:
    """Frames per second of frames at `time` (T,), seconds: over all of them, to six digits. 0 where there is none."""
    seconds = float(time[-1] - time[0]) if len(time) else 0.0
    return float(f"{(len(time) - 1) / seconds:.6g}") if seconds else 0.0


def alike(rate: float, other: float) -> bool:
    """Whether two frame rates count as one."""
    return abs(rate / other - 1) <= ALIKE


def on_clock(time: np.ndarray, fps: float) -> bool:
    """Whether frames at `time` (T,) come at this rate: on the whole, and none of them half a step early or late."""
    steps = np.diff(time)
    return not len(steps) or bool(alike(steps.mean() * fps, 1) and np.abs(steps - 1 / fps).max() <= 0.5 / fps + SLACK)


def moments(time: np.ndarray, fps: float) -> np.ndarray:
    """The even clock of this rate from the first to the last of the frames at `time` (T,), seconds, one at least."""
    return time[0] + np.arange(math.floor((time[-1] - time[0]) * fps + SLACK) + 1) / fps


class Spans:
    """Which of the rows at any times stand for each moment of an even clock: those that are valid in the step around
    it, together, t − step/2 ≤ row < t + step/2; where no row lies in it, the one that `align` gives.

    there (T,) bool: something stands for the moment.
    """

    def __init__(self, rows: np.ndarray, valid: np.ndarray, time: np.ndarray, step: float):
        """rows (N,), seconds, never falling, at least one, of which `valid` (N,) bool count; time (T,), the moments,
        `step` seconds apart."""
        edge = np.searchsorted(rows, np.append(time, time[-1] + step) - step / 2 - SLACK)
        row, near = _nearest(rows, time)
        self.kept, self.count = np.flatnonzero(valid), np.append(0, np.cumsum(valid))[edge]
        self.row, self.alone = row, (np.diff(edge) == 0) & near & valid[row]
        self.averaged = np.flatnonzero(np.diff(self.count))
        self.there = self.alone.copy()
        self.there[self.averaged] = True

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """An array of the rows (N, …) at the moments (T, …), summed in float32; 0 where nothing stands for one."""
        laid = np.zeros((len(self.there), *array.shape[1:]), array.dtype)
        laid[self.alone] = array[self.row[self.alone]]
        for i in range(0, len(self.averaged), BLOCK):
            at = self.averaged[i : i + BLOCK]
            first, stop = self.count[at], self.count[at + 1]  # among the valid rows, without a gap between moments
            rows = array[self.kept[first[0] : stop[-1]]].astype(np.float32)
            laid[at] = (np.add.reduceat(rows, first - first[0]).T / (stop - first)).T
        return laid
