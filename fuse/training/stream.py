"""A run frame by frame: what it says of each when nothing after it is known.

    stream = run.stream()
    stream.add({"visual": rows, "audio": more}, there)  # as they come, on the run's clock
    values, deviation = stream.values()  # of the last frame

`affuse.fuse.models.stream` says how that differs from what windows say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from affuse.fuse.data.corpus import Corpus
from affuse.fuse.models.stream import Stream
from affuse.fuse.scoring.estimate import Estimate, hold
from affuse.fuse.training.memory import check_prediction

if TYPE_CHECKING:
    from affuse.fuse.training.run import Run

AT_ONCE = 240  # frames of a whole video that are encoded at once

Rows = dict[str, Tensor | np.ndarray]


def precise(run: Run) -> torch.autocast:
    """Computing as the run was trained."""
    return torch.autocast(run.device.type, torch.bfloat16, enabled=run.settings.precision == "bfloat16")


def tensors(part: object, device: torch.device, dtype: torch.dtype) -> object:
    """Of a dictionary its arrays as tensors of their own; of anything else itself."""
    if not isinstance(part, dict):
        return part
    own = {m: np.array(x) if isinstance(x, np.ndarray) else x for m, x in part.items()}
    return {m: x if x is None else torch.as_tensor(x, dtype=dtype, device=device) for m, x in own.items()}


class RunStream:
    """A run that is given one video's features, some frames at a time. Raises UsageError for a run one of whose models
    reads windows backwards."""

    def __init__(self, run: Run, video: str = ""):
        self.run, self.video, members = run, video, (run, *run.others)
        kept = max(each.model.memory for each in members)
        self.members = [(each, Stream(each.model, each.normalisation.applied, kept)) for each in members]

    def add(self, features: Rows, present: Rows | None = None) -> None:
        """The next frames: features {m: (n, width_m)}, of any type of number, of every modality that the run takes, and
        present {m: (n,) bool}, where each is there; None is everywhere. Raises UsageError for what does not fit."""
        rows = tensors(features, self.run.device, torch.float32)
        there = tensors(present, self.run.device, torch.bool)
        for run, stream in self.members:
            with precise(run):
                stream.add(rows, there)

    def forget(self, frames: int) -> None:
        """Take back the last frames, at most as many as the longest window has: they come again, and are others. Raises
        UsageError for more than are in memory."""
        for _, stream in self.members:
            stream.forget(frames)

    def values(self, frames: int = 1) -> Estimate:
        """The estimate for each of the last frames, of those that were added last."""
        each = []
        for run, stream in self.members:
            with precise(run):
                output = stream.values(frames, run.settings.batch).float().cpu().numpy()
            own = Estimate.of(output.astype(np.float64), len(run.model.targets))
            each.append(own.moved(run.offsets.get(self.video, 0)))
        return Estimate.together(each).widened(self.run.noise)


def estimate_streamed(run: Run, corpus: Corpus) -> Estimate:
    """The estimate for every frame of a corpus, each by what is known then. A frame without any modality has that of
    the last one before it that has any."""
    for each in (run, *run.others):
        check_prediction(each.model, min(each.settings.batch, len(corpus.time)), each.device)
    present, columns = corpus.any_present().cpu().numpy(), []
    for video, name in enumerate(corpus.videos):
        where, stream, own = corpus.frames(video), RunStream(run, name), []
        for begin in range(where.start, where.stop, AT_ONCE):
            some = slice(begin, min(begin + AT_ONCE, where.stop))
            stream.add(*({m: x[some] for m, x in rows.items()} for rows in (corpus.features, corpus.present)))
            own.append(np.hstack([part for part in stream.values(some.stop - begin) if part is not None]))
        columns.append(hold(np.concatenate(own), present[where]))
    return Estimate.of(np.concatenate(columns), len(corpus.targets))
