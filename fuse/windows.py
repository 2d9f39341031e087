"""Cut a video's frames into windows of one length, and put per-window predictions back onto the frames."""

from __future__ import annotations

import numpy as np


def cut(frames: int, length: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """First frame of each window (W,) and how many frames of it exist (W,), both int64.

    Windows start every `hop` frames; one that ends with the last frame is added where needed, so that every
    frame is covered (hop ≤ length). A video shorter than `length` is one window, to be padded and masked.
    """
    if frames <= length:
        starts = np.zeros(min(frames, 1), np.int64)
    else:
        starts = np.arange(0, frames - length + 1, hop, dtype=np.int64)
        if starts[-1] + length < frames:
            starts = np.append(starts, frames - length)
    return starts, np.minimum(frames - starts, length)


def overlap_mean(predictions: np.ndarray, starts: np.ndarray, frames: int) -> np.ndarray:
    """Each frame's prediction: the mean over the windows that cover it.

    predictions (W, L, targets), starts (W,) as given by `cut` → (frames, targets) float64. Padding is left
    out.
    """
    total = np.zeros((frames, predictions.shape[2]))
    count = np.zeros((frames, 1))
    for start, window in zip(starts, predictions, strict=True):
        covered = slice(start, start + len(window))
        total[covered] += window[: frames - start]
        count[covered] += 1
    return total / count
