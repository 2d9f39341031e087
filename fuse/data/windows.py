"""A corpus cut into windows: normalised by the training statistics, gathered by index, and put together again.

Nothing is loaded twice and no worker process is needed: a batch is one gather per modality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from affuse.errors import AffuseError
from affuse.fuse.data.corpus import Corpus

STD_FLOOR = 0.05  # of the modality's overall spread: a channel that hardly moved in training is not blown up


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


def joined(predictions: Sequence[np.ndarray], starts: np.ndarray, frames: int, overlap: str = "mean") -> np.ndarray:
    """Each frame's prediction: the mean over the windows that cover it, or that of the one of them that shows most of
    its past.

    predictions: W of (L, targets); starts (W,) as given by `cut` → (frames, targets) float64. Padding is left out.
    """
    values, count = np.zeros((frames, predictions[0].shape[1])), np.zeros((frames, 1))
    for start, window in reversed([*zip(starts, predictions, strict=True)]):
        covered = slice(start, start + len(window))
        if overlap == "past":  # earlier windows come later here
            values[covered], count[covered] = window[: frames - start], 1
        else:
            values[covered] += window[: frames - start]
            count[covered] += 1
    return values / count


@dataclass(frozen=True)
class Normalisation:
    """Per modality what is taken off its features, and what they are then divided by: (width,) float32 each."""

    mean: dict[str, Tensor]
    std: dict[str, Tensor]

    @classmethod
    def fit(cls, corpus: Corpus, how: str = "channels") -> Normalisation:
        """Statistics of the training frames where each modality is present.

        how  channels: mean and standard deviation of every channel; text: one mean and one deviation of all numbers of
             the text embeddings, nothing of the others; none: nothing

        Raises AffuseError when a modality is present nowhere.
        """
        mean, std = {}, {}
        for m, features in corpus.features.items():
            if not corpus.present[m].any():
                raise AffuseError(
                    f"No training video has {m} features, so nothing can be learned from them. "
                    f"Leave {m} out of the setting `modalities`."
                )
            if how != "channels" and (how, m) != ("text", "text"):
                mean[m] = torch.zeros(features.width, device=corpus.device)
                std[m] = torch.ones_like(mean[m])
                continue
            centre, variance = features.moments()
            if how == "text":
                variance = (variance + (centre - centre.mean()) ** 2).mean().expand_as(centre)
                centre = centre.mean().expand_as(centre)
            overall = float(variance.mean().sqrt())
            mean[m] = centre.float()
            std[m] = variance.sqrt().clamp(min=max(STD_FLOOR * overall, 1e-6)).float()
        return cls(mean, std)

    def applied(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features {modality: (…, width)}, of any float type, normalised, in float32."""
        return {m: (x.float() - self.mean[m]) / self.std[m] for m, x in rows.items()}

    def to(self, device: str | torch.device) -> Normalisation:
        return Normalisation(*({m: t.to(device) for m, t in each.items()} for each in (self.mean, self.std)))


@dataclass(frozen=True)
class Batch:
    """inputs {modality: (B, L, width) float32}, mask {modality: (B, L) bool}, truth (B, L, targets),
    counted (B, L) bool: the frame is annotated and has at least one modality."""

    inputs: dict[str, Tensor]
    mask: dict[str, Tensor]
    truth: Tensor
    counted: Tensor


class Windows:
    """The windows of a corpus: (W,) first frame among all frames, and how many frames of each exist. Of length None
    every video is one, and a batch of its own. overlap: as `joined` has it."""

    def __init__(
        self, corpus: Corpus, length: int | None, hop: int, normalisation: Normalisation, overlap: str = "mean"
    ):
        cuts = [cut(int(n), length or int(n), hop) for n in np.diff(corpus.start)]
        self.corpus, self.length, self.normalisation, self.overlap = corpus, length, normalisation, overlap
        self.starts = [starts for starts, _ in cuts]  # within the video, one array per video
        first = np.concatenate([s + base for s, base in zip(self.starts, corpus.start[:-1], strict=True)])
        self.first = torch.from_numpy(first).to(corpus.device)
        self.frames = torch.from_numpy(np.concatenate([n for _, n in cuts])).to(corpus.device)

    def __len__(self) -> int:
        return len(self.first)

    def gather(self, which: Tensor, view: Tensor | None = None) -> Batch:
        """The batch of windows number `which` (B,), the faces of each in its view number `view` (B,), on the CPU, where
        nobody waits for the answer to which windows show which: 0 for the centre, as for all by default, k for the
        k-th of the corpus's further views. Padding repeats some frame's values under a False mask."""
        length = self.length or int(self.frames[which].max())
        corpus, step = self.corpus, torch.arange(length, device=self.first.device)
        inside = step < self.frames[which, None]
        index = (self.first[which, None] + step).clamp(max=len(corpus.truth) - 1)
        rows = {m: x[index] for m, x in corpus.features.items()}
        if view is not None:
            for number, faces in enumerate(corpus.views.values(), start=1):
                drawn = (view == number).nonzero().squeeze(1)
                rows["visual"][drawn] = faces[index[drawn]]
        mask = {m: present[index] & inside for m, present in corpus.present.items()}
        counted = corpus.annotated[index] & torch.stack(list(mask.values())).any(0)
        return Batch(self.normalisation.applied(rows), mask, corpus.truth[index], counted)

    def to_frames(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Values of all windows in order, each (L, columns), as one (frames, columns) float64 per video."""
        ends = np.cumsum([0, *map(len, self.starts)])
        parts = [values[a:b] for a, b in pairwise(ends)]
        videos = zip(parts, self.starts, np.diff(self.corpus.start), strict=True)
        return [joined(part, starts, int(frames), self.overlap) for part, starts, frames in videos]

    def ordered(self, batch: int) -> Iterator[Batch]:
        """All windows in order, `batch` at a time, faces from the centre."""
        for which in torch.arange(len(self), device=self.first.device).split(batch if self.length else 1):
            yield self.gather(which)

    def shuffled(self, batch: int, seed: int, order_seed: int | None = None) -> Iterator[Batch]:
        """All windows in the random order that `order_seed` gives, `seed` where there is none, `batch` at a time, each
        with a view of its faces that `seed` draws evenly from those there are."""
        generator = torch.Generator().manual_seed(seed)
        ordering = generator if order_seed is None else torch.Generator().manual_seed(order_seed)
        order = torch.randperm(len(self), generator=ordering).to(self.first.device)
        views = torch.randint(1 + len(self.corpus.views), (len(self),), generator=generator)
        for which, view in zip(order.split(batch), views.split(batch), strict=True):
            yield self.gather(which, view)
