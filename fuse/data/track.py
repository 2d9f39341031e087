"""One video's annotation in time, and the passage between its clock and the frames' clock, in both directions.

Training lays labels on frames; scoring lays predictions on the labels' own rows, so that labels of 2 Hz count
twice a second and labels of 100 Hz a hundred times, whatever the frame rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from affuse.config import nearest
from affuse.errors import AffuseError, counted

TOLERATED_ROWS = 1  # 106 of Aff-Wild2's 561 annotated videos have one row more than frames
TOLERATED_SECONDS = 1.0  # that timed labels may go on after their video's last frame; or one row, if longer
ADJACENT = 1.5  # × the median spacing: rows further apart have a gap between them
SLACK = 1e-6  # seconds; times that differ by rounding still meet


@dataclass(frozen=True)
class Track:
    """One video's annotation: values (N, targets) float32, NaN where not annotated; valid (N,) bool, rows that
    count at all.

    time None: row i belongs to frame i. time (N,) seconds: row i belongs to that moment; with end (N,) to all
    moments from time to end. What a row lacks only matters to those who ask for that target.
    """

    path: Path
    targets: tuple[str, ...]
    values: np.ndarray
    valid: np.ndarray
    time: np.ndarray | None = None
    end: np.ndarray | None = None

    def pick(self, targets: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Columns of `targets` (N, targets) and the rows (N,) bool that count and have all of them.

        Raises AffuseError for a target that the file does not have.
        """
        columns = []
        for target in targets:
            if target not in self.targets:
                raise AffuseError(f"Label file {self.path} has no target {target!r}{nearest(target, self.targets)}")
            columns.append(self.targets.index(target))
        values = self.values[:, columns]
        return values, self.valid & ~np.isnan(values).any(axis=1)


def lay(
    track: Track, targets: Iterable[str], time: np.ndarray, frames: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A track on frames at `time` (T,), seconds: values (T, targets) float32 with 0 where not valid, valid (T,) bool.

    frames (N,), seconds: the video's own frames, where `time` is another clock.

    Raises AffuseError for labels that go on after the video, and for a target that the file does not have.
    """
    if track.time is None:
        if frames is None:
            return on_frames(track, targets, len(time))
        _check_rows(track, len(frames))
        rows = min(len(track.values), len(frames))
        track = replace(track, values=track.values[:rows], valid=track.valid[:rows], time=frames[:rows])
    values, usable = track.pick(targets)
    _check_length(track, time if frames is None else frames)
    if track.end is None:
        laid, valid = resample(track.time, values, usable, time)
    else:  # each moment gets the row whose span start ≤ t < end it lies in
        row = np.searchsorted(track.time, time + SLACK, side="right") - 1
        valid = (row >= 0) & (time < track.end[row] - SLACK) & usable[row]
        laid = np.where(valid[:, None], values[row], 0)
    return laid.astype(np.float32), valid


def on_frames(track: Track, targets: Iterable[str], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay a track of one row per frame on a video's frames, as `lay` does.

    One row more or fewer than frames is tolerated: the extra row is dropped, the frame without a row is not
    valid. Raises AffuseError for any other difference, and for a target that the file does not have.
    """
    _check_rows(track, frames)
    picked, usable = track.pick(targets)
    frame, rows = np.arange(frames), len(picked)
    row = frame.clip(max=rows - 1)
    valid = usable[row] & (frame < rows)
    return np.where(valid[:, None], picked[row], np.float32(0)), valid


def on_rows(
    track: Track, targets: Iterable[str], time: np.ndarray, prediction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction (n, targets) on those rows of a timed track that are annotated and lie in the video.

    time (T,) of the frames, prediction (T, targets). A row with an end gets the mean of the frames in it; any other
    row what `resample` gives.
    """
    values, usable = track.pick(targets)
    everywhere = np.ones(len(time), bool)
    if track.end is not None:
        laid, there = mean_between(time, prediction, everywhere, track.time - SLACK, track.end - SLACK)
    else:
        laid, there = resample(time, prediction, everywhere, track.time)
    rows = usable & there
    return values[rows].astype(np.float64), laid[rows]


def resample(time: np.ndarray, values: np.ndarray, valid: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows at `time` (N,), rising, brought to the moments `at` (T,): values (T, targets) float64, valid (T,) bool.

    Where the rows are denser than the moments: the mean of the valid rows within half a spacing of the moments
    to either side. Where they are sparser or as dense: the line between the two valid rows around a moment, as
    long as none is missing between them; else the nearer valid one of the two, up to half a spacing of the rows
    away. Elsewhere 0 and not valid.
    """
    values = np.asarray(values, np.float64)
    if not len(time):
        return np.zeros((len(at), values.shape[1])), np.zeros(len(at), bool)
    spacing, step = _spacing(time), _spacing(at)
    if step > spacing * ADJACENT:
        return mean_between(time, values, valid, at - step / 2 - SLACK, at + step / 2 - SLACK)
    after = np.searchsorted(time, at, side="right").clip(1, max(len(time) - 1, 1)).clip(max=len(time) - 1)
    before = (after - 1).clip(min=0)
    gap = time[after] - time[before]
    share = np.divide(at - time[before], gap, out=np.zeros(len(at)), where=gap > 0)
    between = (share >= 0) & (share <= 1) & (gap <= spacing * ADJACENT) & valid[before] & valid[after]
    reach = spacing / 2 + SLACK
    to_before, to_after = np.abs(at - time[before]), np.abs(at - time[after])
    near_before, near_after = valid[before] & (to_before <= reach), valid[after] & (to_after <= reach)
    lone = np.where(near_before & (~near_after | (to_before <= to_after)), before, after)
    line = values[before] + share[:, None] * (values[after] - values[before])
    laid = np.where(between[:, None], line, values[lone])
    there = between | near_before | near_after
    return np.where(there[:, None], laid, 0), there


def mean_between(
    time: np.ndarray, values: np.ndarray, valid: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each span low ≤ t < high (T,) the mean of the valid rows (N, targets) in it, and whether there is one."""
    first, stop = np.searchsorted(time, low), np.searchsorted(time, high)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(np.where(valid[:, None], values, 0), axis=0)])
    count = np.concatenate([[0], np.cumsum(valid)])
    rows = count[stop] - count[first]
    return (total[stop] - total[first]) / np.maximum(rows, 1)[:, None], rows > 0


def _spacing(time: np.ndarray) -> float:
    """Median seconds between rows; a single row stands for one second."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 1.0


def _check_rows(track: Track, frames: int) -> None:
    rows = len(track.values)
    if abs(rows - frames) > TOLERATED_ROWS:
        raise AffuseError(
            f"Label file {track.path} has {counted(rows, 'row')}, its video has {counted(frames, 'frame')}. "
            f"They may differ by {TOLERATED_ROWS} at most; check that the file belongs to this video and has its rate."
        )


def _check_length(track: Track, time: np.ndarray) -> None:
    last = float((track.time if track.end is None else track.end)[-1])
    row = _spacing(track.time) if track.end is None else 0.0
    ends = float(time[-1]) + _spacing(time) if len(time) else 0.0
    if last > ends + max(TOLERATED_SECONDS, row):
        raise AffuseError(
            f"Label file {track.path} goes on to {last:.2f} s, its video ends at {ends:.2f} s. Check that the file "
            "belongs to this video, that its time is in seconds, and that the rate is right where one is given."
        )
