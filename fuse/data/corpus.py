"""Features and labels of many videos side by side on the device."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affuse.errors import AffuseError, counted, listed
from affuse.features import FeatureStore
from affuse.files import as_path
from affuse.fuse.data.clock import Frames
from affuse.fuse.data.track import SLACK, Track

log = logging.getLogger("affuse")

CHUNK = 1024  # rows whose statistics are computed at once: 1024 × 2048 float32 are 8 MiB, which caches hold

Features = FeatureStore | Path | str  # a store or its path


def as_store(features: Features) -> FeatureStore:
    """A store, or the store at a path. Raises UsageError for anything else."""
    if isinstance(features, FeatureStore):
        return features
    return FeatureStore(as_path("a FeatureStore or the path of one", features))


@dataclass(frozen=True)
class Embeddings:
    """Embeddings by frame, (F, width) float16, each in memory once, though a word goes on for many frames and several
    corpora may draw on the same. values (N + 1, width), the first zeros; index (F,) int32, which is each frame's;
    known, what `moments` has found of these values."""

    values: Tensor
    index: Tensor
    known: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def __getitem__(self, frames: Tensor | slice) -> Tensor:
        """Those of some frames (…, width)."""
        return F.embedding(self.index[frames], self.values)  # a third of the time that indexing takes

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (width,) float64 of the frames that have one: chunks in float32, merged in float64. Found
        once for all who draw the same frames from the same values."""
        key = hashlib.sha256(self.index.cpu().numpy()).digest()
        if key not in self.known:
            parts = self.index[self.index > 0].split(CHUNK)
            found = torch.empty(2, len(parts), self.width, device=self.values.device)
            for i, part in enumerate(parts):  # one place for all: kept apart they would lie between the chunks' memory
                chunk = F.embedding(part, self.values).float()
                found[:, i] = mean_and_variance(chunk)
            part_mean, part_var = found.double()
            counts = torch.tensor([[len(part)] for part in parts], dtype=torch.float64, device=part_mean.device)
            share = counts / counts.sum()
            centre = (share * part_mean).sum(0)
            variance = (share * (part_var + (part_mean - centre) ** 2)).sum(0)
            self.known[key] = centre.cpu().numpy(), variance.cpu().numpy()
        centre, variance = (torch.from_numpy(own).to(self.values.device) for own in self.known[key])
        return centre, variance

    def only(self, frames: Tensor) -> Embeddings:
        """By these frames alone."""
        return replace(self, index=self.index[frames])


def mean_and_variance(rows: Tensor) -> Tensor:
    """Of rows (n, width) those of each column, (2, width): in a fifth of the time that torch.var_mean takes."""
    mean = rows.mean(0)
    return torch.stack([mean, (rows - mean).square_().mean(0)])


@dataclass
class Corpus:
    """Videos with their features, and labels where there are any; F is the number of all frames that a model reads.

    start (V+1,): video i's frames are start[i] … start[i+1]. time (F,) float64, seconds.
    features {modality: (F, width) float16}, present {modality: (F,) bool}; views {name: (F, width) float16}, what
    windows may see instead of features["visual"]; truth (F, targets) float32; annotated (F,) bool: every target has a
    label. timed {video id: labels with a clock of their own, which they are scored at}. left_out {video id: why}.
    resampled {video id: its own frames}, of the videos whose frames here are those of another clock; other_rates, the
    frames per second of each of these; held, whether what is said of a moment of that clock holds until the next.
    """

    videos: list[str]
    targets: list[str]
    start: np.ndarray
    time: np.ndarray
    features: dict[str, Embeddings]
    present: dict[str, Tensor]
    truth: Tensor
    annotated: Tensor
    timed: dict[str, Track] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    views: dict[str, Embeddings] = field(default_factory=dict)
    resampled: dict[str, Frames] = field(default_factory=dict)
    other_rates: list[float] = field(default_factory=list)
    held: bool = False

    @property
    def device(self) -> torch.device:
        return self.truth.device

    def frames(self, video: int) -> slice:
        """Where the frames of video number `video` lie."""
        return slice(int(self.start[video]), int(self.start[video + 1]))

    def own(self, video: int) -> Frames:
        """The own frames of video number `video`."""
        if (before := self.resampled.get(self.videos[video])) is not None:
            return before
        where = self.frames(video)
        present = {m: there[where].cpu().numpy() for m, there in self.present.items()}
        return Frames(self.time[where], present, *(x[where].cpu().numpy() for x in (self.truth, self.annotated)))

    def on_own(self, video: int, values: np.ndarray) -> np.ndarray:
        """Values (F, columns) of all frames, those of one video on its own frames (T, columns): on the lines between
        the moments of another clock, or held from one to the next."""
        where = self.frames(video)
        if self.videos[video] not in self.resampled:
            return values[where]
        time = self.own(video).time
        if self.held:
            return values[where][np.searchsorted(self.time[where], time + SLACK, side="right").clip(1) - 1]
        return np.stack([np.interp(time, self.time[where], column) for column in values[where].T], axis=1)

    def any_present(self) -> Tensor:
        """(F,) bool: at least one modality has features at that frame."""
        return torch.stack(list(self.present.values())).any(0)

    def closed(self, partition: str) -> Corpus:
        """Without the frames that are not annotated: what follows a gap comes right after what precedes it.

        Videos without a frame that has both a label and features are left out; AffuseError where no other is, naming
        the partition.
        """
        useful = (self.annotated & self.any_present()).cpu().numpy()
        has = np.add.reduceat(useful, self.start[:-1]) > 0
        kept = np.flatnonzero(has)
        if not len(kept):
            raise AffuseError(f"No frame of the {partition} videos has both a label and features. Check the labels.")
        left_out = {self.videos[i]: "no frame has both a label and features" for i in np.flatnonzero(~has)}
        rows = np.flatnonzero(self.annotated.cpu().numpy() & np.repeat(has, np.diff(self.start)))
        keep = torch.from_numpy(rows).to(self.device)
        counts = np.diff(np.searchsorted(rows, self.start))
        return replace(
            self,
            videos=[self.videos[i] for i in kept],
            start=np.concatenate([[0], np.cumsum(counts[kept])]),
            time=self.time[rows],
            features={m: own.only(keep) for m, own in self.features.items()},
            present={m: there[keep] for m, there in self.present.items()},
            views={view: faces.only(keep) for view, faces in self.views.items()},
            truth=self.truth[keep],
            annotated=self.annotated[keep],
            left_out=self.left_out | left_out,
            resampled={name: own.only(own.annotated) for name, own in self.resampled.items()},
        )


def match(store: FeatureStore, labelled: Iterable[str], allow_missing: bool = False) -> list[str]:
    """The labelled videos that the store has. Raises AffuseError naming those it has not, unless allowed."""
    labelled = list(labelled)
    missing = [video for video in labelled if video not in store]
    if missing and not allow_missing:
        raise AffuseError(
            f"The feature store {store.path} lacks {counted(len(missing), 'labelled video')}: {listed(missing)}. "
            "Extract the rest, or leave them out "
            "with --set allow_missing=true."
        )
    if missing:
        log.warning("not in the store and left out: %s: %s", counted(len(missing), "labelled video"), listed(missing))
    return [video for video in labelled if video in store]
