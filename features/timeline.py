"""Laying a video's features on any time base: which row, which word belongs to each moment, if any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from affuse.errors import AffuseError, UsageError
from affuse.features.parts import MODALITIES, Parts, TextFeatures, checked_modalities

LONE_ROW = 0.5  # seconds around a single row in which it stands for the video
SLACK = 1e-6  # seconds; times that differ by rounding still meet


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
        width = _width(video, modality, widths)
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


def _width(video: Parts, modality: str, widths: Mapping[str, int] | None) -> int:
    rows, own = getattr(video, modality).embedding.shape
    if widths is None:
        return own
    if modality not in widths:
        raise AffuseError(
            f"There are no {modality} features here, only {', '.join(widths)}. Leave {modality} out of the "
            "modalities, or extract again with it."
        )
    if rows and own != widths[modality]:
        raise AffuseError(
            f"The {modality} features of video {video.id!r} are {own} wide where {widths[modality]} are "
            "expected: they were made by another backbone. Extract it again with the settings of the others."
        )
    return widths[modality]


def _nearest(rows: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index (T,) of the row nearest to each time, and whether it is near enough. `rows` (N,) never fall."""
    after = np.searchsorted(rows, time).clip(max=len(rows) - 1)
    before = (after - 1).clip(min=0)
    earlier = np.abs(time - rows[before]) <= np.abs(time - rows[after])
    nearest = np.where(earlier, rows[before], rows[after])
    reach = np.median(np.diff(rows)) / 2 if len(rows) > 1 else LONE_ROW
    # Of rows with the same time, searchsorted finds the first.
    return np.searchsorted(rows, nearest), np.abs(time - nearest) <= reach + SLACK


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
