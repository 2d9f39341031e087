"""The truth beside what was predicted: on the prediction's rows for curves, on the labels' own rows for scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from affuse.fuse.data.track import Track, lay, on_rows
from affuse.fuse.scoring.predict import Prediction


def laid_on(
    track: Track, targets: Sequence[str], time: np.ndarray, clock: np.ndarray, rows: np.ndarray, closed: bool = False
) -> np.ndarray:
    """The truth (T, targets) at the moments `time` (T,), NaN where there is none.

    clock (F,): the video's own frames, of which the moments are `rows` (T,); time itself where they are not known.
    closed: of labels with a row per frame those that are annotated are known to be the moments. Raises AffuseError for
    labels that do not fit.
    """
    if track.time is None:
        values, usable = track.pick(targets)
        if closed and len(clock) == usable.sum() != len(usable):
            return values[usable].astype(np.float64)
        laid, valid = (part[rows] for part in lay(track, targets, clock))
    else:
        laid, valid = lay(track, targets, time)
    return np.where(valid[:, None], laid, np.nan)


def paired(prediction: Prediction, track: Track, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction (n, targets) on the labels' own rows, as `affuse fuse evaluate` scores them; truth as
    `laid_on` gives it."""
    if track.time is None:
        annotated = ~np.isnan(truth).any(axis=1)
        return truth[annotated], prediction.values[annotated]
    return on_rows(track, prediction.targets, prediction.time, prediction.values)
