"""From a model's windows to an estimate of every frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri

from affuse.fuse.data.corpus import Corpus
from affuse.fuse.data.windows import Windows
from affuse.fuse.models.model import FusionModel

BAND = 0.9  # of truths within the band that is drawn and judged
REACH = float(ndtri((1 + BAND) / 2))  # of it, in standard deviations


class Estimate(NamedTuple):
    """What is predicted for the frames of a corpus: values (F, targets) float64 in [−1, 1], and deviation, the standard
    deviation of each, where one is known."""

    values: np.ndarray
    deviation: np.ndarray | None = None

    @classmethod
    def of(cls, output: np.ndarray, targets: int) -> Estimate:
        """A model's output by frame, (F, targets), or (F, 2 · targets) with deviations."""
        values, deviation = np.split(output, [targets], axis=1)
        return cls(values.clip(-1, 1), deviation if deviation.size else None)

    @classmethod
    def together(cls, estimates: Sequence[Estimate]) -> Estimate:
        """Of several models one: the mean and the standard deviation of the mixture of their normal distributions
        (Lakshminarayanan, Pritzel, Blundell 2017, sec. 2.4)."""
        values = np.stack([each.values for each in estimates])
        own = [each.deviation**2 for each in estimates if each.deviation is not None]
        variance = values.var(axis=0) + (np.mean(own, axis=0) if own else 0)
        return cls(values.mean(axis=0), np.sqrt(variance) if own or len(values) > 1 else None)

    def shifted(self, corpus: Corpus, offsets: Mapping[str, Sequence[float]]) -> Estimate:
        """With the offset of each target added in the videos that have one."""
        by = np.zeros_like(self.values)
        for video, name in enumerate(corpus.videos):
            by[corpus.frames(video)] = offsets.get(name, 0)
        return self.moved(by)

    def moved(self, by: np.ndarray | Sequence[float] | float) -> Estimate:
        """With `by`, of each target or each value, added."""
        return self._replace(values=(self.values + by).clip(-1, 1))

    def widened(self, noise: np.ndarray) -> Estimate:
        """With the variance noise (targets,) added to that of the deviation, where there is one."""
        return self if self.deviation is None else self._replace(deviation=np.sqrt(self.deviation**2 + noise))


def predict_frames(model: FusionModel, windows: Windows, batch: int, precision: str = "float32") -> Estimate:
    """The model's estimate for every frame of the windows' corpus.

    Where a frame has no modality at all the model has nothing to go by; what is said of it is interpolated between the
    nearest frames that have one.
    """
    device = windows.corpus.device
    if was_training := model.training:
        model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        parts = [model(b.inputs, mask=b.mask).float() for b in windows.ordered(batch)]
    if was_training:
        model.train()
    return onto_frames(windows, parts)


def onto_frames(windows: Windows, outputs: Iterable[torch.Tensor]) -> Estimate:
    """A model's outputs for batches of windows, (B, L, columns) each, as `predict_frames` gives them by frame."""
    corpus = windows.corpus
    present = corpus.any_present().cpu().numpy()
    frames = windows.to_frames([window for part in outputs for window in part.cpu().numpy()])
    for video, values in enumerate(frames):
        where = corpus.frames(video)
        bridge(corpus.time[where], values, present[where])
    return Estimate.of(np.concatenate(frames), len(corpus.targets))


def bridge(time: np.ndarray, values: np.ndarray, seen: np.ndarray) -> None:
    """Put the line between the nearest rows that are `seen` (T,) in the place of the others, in values (T, columns)."""
    for column in values.T:
        column[~seen] = np.interp(time[~seen], time[seen], column[seen])


def hold(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """values (T, columns) with those of the last row that is `seen` (T,) in the place of the others, of the first one
    before it."""
    last = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), -1))
    return values[np.where(last < 0, seen.argmax(), last)]
