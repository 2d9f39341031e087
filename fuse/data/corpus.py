"""Features and labels as training wants them: every video's frames side by side on the device, cut by index.

Nothing is loaded twice and no worker process is needed: a batch is one gather per modality.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from affuse.features import FeatureStore, VideoFeatures, align
from affuse.fuse.data.track import Track, lay
from torch import Tensor

from affuse.errors import AffuseError


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


log = logging.getLogger("affuse")

CHUNK = 4096  # rows whose statistics are computed at once: 4096 × 2048 float32 are 32 MiB
STD_FLOOR = 0.05  # of the modality's overall spread: a channel that hardly moved in training is not blown up


@dataclass
class Corpus:
    """Videos with their features, and labels where there are any; F is the number of all their frames.

    start (V+1,): video i's frames are start[i] … start[i+1]. time (F,) float64, seconds.
    features {modality: (F, width) float16}, present {modality: (F,) bool}; views {name: (F, width) float16}, what
    windows may see instead of features["visual"]; truth (F, targets) float32;
    annotated (F,) bool: every target has a label. timed {video id: labels that have a clock of their own, which
    they are scored at}. left_out {video id: why it is not here}.
    """

    videos: list[str]
    targets: list[str]
    start: np.ndarray
    time: np.ndarray
    features: dict[str, Tensor]
    present: dict[str, Tensor]
    truth: Tensor
    annotated: Tensor
    timed: dict[str, Track] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    views: dict[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.truth.device

    def frames(self, video: int) -> slice:
        """Where the frames of video number `video` lie."""
        return slice(int(self.start[video]), int(self.start[video + 1]))

    def any_present(self) -> Tensor:
        """(F,) bool: at least one modality has features at that frame."""
        return torch.stack(list(self.present.values())).any(0)

    def closed(self) -> Corpus:
        """Without the frames that are not annotated: what follows a gap comes right after what precedes it.

        Videos without a frame that has both a label and features are left out; AffuseError where no other is.
        """
        useful = (self.annotated & self.any_present()).cpu().numpy()
        has = np.add.reduceat(useful, self.start[:-1]) > 0
        kept = np.flatnonzero(has)
        if not len(kept):
            raise AffuseError("No frame of the videos has both a label and features.")
        left_out = {self.videos[i]: "no frame has both a label and features" for i in np.flatnonzero(~has)}
        rows = np.flatnonzero(self.annotated.cpu().numpy() & np.repeat(has, np.diff(self.start)))
        keep = torch.from_numpy(rows).to(self.device)
        counts = np.diff(np.searchsorted(rows, self.start))
        return replace(
            self,
            videos=[self.videos[i] for i in kept],
            start=np.concatenate([[0], np.cumsum(counts[kept])]),
            time=self.time[rows],
            features={m: x[keep] for m, x in self.features.items()},
            present={m: x[keep] for m, x in self.present.items()},
            truth=self.truth[keep],
            annotated=self.annotated[keep],
            left_out=self.left_out | left_out,
            views={view: x[keep] for view, x in self.views.items()},
        )


def load_corpus(
    store: FeatureStore,
    videos: Iterable[str],
    modalities: list[str],
    targets: list[str],
    tracks: dict[str, Track] | None = None,
    device: str | torch.device = "cpu",
    views: bool = False,
) -> Corpus:
    """Read videos from the store, align every modality to their frames, and lay their tracks on them.

    views: read all views of the faces, where the visual modality is wanted and the store has more than the centre.

    A video with none of the modalities is left out, and said so in `left_out`. Raises AffuseError where
    labels do not fit their videos, naming the files, and where no video is left.
    """
    kept, times, truths, valids, left_out, misfits = [], [], [], [], {}, []
    features = {m: [] for m in modalities}
    present = {m: [] for m in modalities}
    further = []  # {view: (frames, width)} of each video
    for name in videos:
        video = store.read(name, modalities, views)
        time = store.frame_times(name)
        aligned = align(video, time, modalities, store.widths)
        if not any(valid.any() for _, valid in aligned.values()):
            left_out[name] = "; ".join(f"no {m}: {_why(video, m)}" for m in modalities)
            continue
        truth, valid = np.zeros((len(time), len(targets)), np.float32), np.zeros(len(time), bool)
        if tracks is not None:
            try:
                truth, valid = lay(tracks[name], targets, time)
            except AffuseError as error:
                misfits.append(str(error))
                continue
        kept.append(name)
        times.append(time)
        truths.append(truth)
        valids.append(valid)
        for m, (embedding, mask) in aligned.items():
            features[m].append(torch.from_numpy(embedding).to(device))
            present[m].append(torch.from_numpy(mask).to(device))
        if views and "visual" in modalities:
            seen = _aligned_views(video, time, store.widths)
            further.append({view: torch.from_numpy(rows).to(device) for view, rows in seen.items()})
    if misfits:
        raise AffuseError("\n".join(misfits))
    if not kept:
        raise AffuseError(
            f"None of the {len(left_out)} videos has features to work on: "
            + "; ".join(f"{name} ({why})" for name, why in list(left_out.items())[:5])
        )
    # A video without pictures has no views: its rows are zeros in all of them, as in the centre.
    named = dict.fromkeys(view for seen in further for view in seen)
    seen = {
        view: torch.cat(
            [own.pop(view, centre) for own, centre in zip(further, features["visual"], strict=True)]
        )
        for view in named
    }
    return Corpus(
        kept,
        list(targets),
        np.concatenate([[0], np.cumsum([len(t) for t in times])]),
        np.concatenate(times),
        {m: torch.cat(features.pop(m)) for m in modalities},
        {m: torch.cat(present.pop(m)) for m in modalities},
        torch.from_numpy(np.concatenate(truths)).to(device),
        torch.from_numpy(np.concatenate(valids)).to(device),
        {name: tracks[name] for name in kept if tracks[name].time is not None} if tracks else {},
        left_out,
        seen,
    )


def _aligned_views(video: VideoFeatures, time: np.ndarray, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """{view: (T, width)}: every further view of the faces, laid on `time` as the centre is."""
    aligned = {}
    for view, embedding in video.visual.views.items():
        turned = replace(video, visual=replace(video.visual, embedding=embedding))
        aligned[view] = align(turned, time, ["visual"], widths)["visual"][0]
    return aligned


def _why(video: VideoFeatures, modality: str) -> str:
    part = getattr(video, modality)
    return f"{part.status.value} ({part.reason})" if part.reason else part.status.value


def match(store: FeatureStore, labelled: Iterable[str], allow_missing: bool = False) -> list[str]:
    """The labelled videos that the store has. Raises AffuseError naming those it has not, unless allowed."""
    labelled = list(labelled)
    missing = [video for video in labelled if video not in store]
    if missing and not allow_missing:
        raise AffuseError(
            f"{len(missing)} labelled video(s) are not in the feature store {store.path}: "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}. Extract them, or leave them out "
            "with --set allow_missing=true."
        )
    if missing:
        log.warning(
            "%d labelled videos are not in the store and left out: %s", len(missing), ", ".join(missing)
        )
    return [video for video in labelled if video in store]


@dataclass(frozen=True)
class Normalisation:
    """Per modality the mean and standard deviation (width,) float32 of the training frames that have it."""

    mean: dict[str, Tensor]
    std: dict[str, Tensor]

    @classmethod
    def fit(cls, corpus: Corpus) -> Normalisation:
        """Statistics of the frames where each modality is present: chunks in float32, merged in float64.

        Raises AffuseError when a modality is present nowhere.
        """
        mean, std = {}, {}
        for m, features in corpus.features.items():
            rows = corpus.present[m].nonzero().squeeze(1)
            if not len(rows):
                raise AffuseError(
                    f"No training video has {m} features, so nothing can be learned from them. "
                    f"Leave {m} out of the setting `modalities`."
                )
            parts = rows.split(CHUNK)
            moments = [torch.var_mean(features[part].float(), 0, correction=0) for part in parts]
            part_var, part_mean = (torch.stack(each).double() for each in zip(*moments, strict=True))
            counts = torch.tensor([[len(part)] for part in parts], dtype=torch.float64, device=rows.device)
            share = counts / len(rows)
            centre = (share * part_mean).sum(0)
            variance = (share * (part_var + (part_mean - centre) ** 2)).sum(0)
            overall = float(variance.mean().sqrt())
            mean[m] = centre.float()
            std[m] = variance.sqrt().clamp(min=max(STD_FLOOR * overall, 1e-6)).float()
        return cls(mean, std)

    def to(self, device: str | torch.device) -> Normalisation:
        return Normalisation(
            {m: t.to(device) for m, t in self.mean.items()}, {m: t.to(device) for m, t in self.std.items()}
        )


@dataclass(frozen=True)
class Batch:
    """inputs {modality: (B, L, width) float32}, mask {modality: (B, L) bool}, truth (B, L, targets),
    counted (B, L) bool: the frame is annotated and has at least one modality."""

    inputs: dict[str, Tensor]
    mask: dict[str, Tensor]
    truth: Tensor
    counted: Tensor


class Windows:
    """The windows of a corpus: (W,) first frame among all frames, and how many frames of each exist."""

    def __init__(self, corpus: Corpus, length: int, hop: int, normalisation: Normalisation):
        cuts = [cut(int(n), length, hop) for n in np.diff(corpus.start)]
        self.corpus, self.length, self.normalisation = corpus, length, normalisation
        self.starts = [starts for starts, _ in cuts]  # within the video, one array per video
        first = np.concatenate([s + base for s, base in zip(self.starts, corpus.start[:-1], strict=True)])
        self.first = torch.from_numpy(first).to(corpus.device)
        self.frames = torch.from_numpy(np.concatenate([n for _, n in cuts])).to(corpus.device)

    def __len__(self) -> int:
        return len(self.first)

    def gather(self, which: Tensor, view: Tensor | None = None) -> Batch:
        """The batch of windows number `which` (B,), the faces of each in its view number `view` (B,): 0 for the
        centre, as for all by default, k for the k-th of the corpus's further views. Padding repeats some frame's
        values under a False mask."""
        corpus, step = self.corpus, torch.arange(self.length, device=self.first.device)
        inside = step < self.frames[which, None]
        index = (self.first[which, None] + step).clamp(max=len(corpus.truth) - 1)
        mean, std = self.normalisation.mean, self.normalisation.std
        rows = {m: x[index] for m, x in corpus.features.items()}
        if view is not None:
            for number, faces in enumerate(corpus.views.values(), start=1):
                drawn = (view == number).nonzero().squeeze(1)
                rows["visual"][drawn] = faces[index[drawn]]
        inputs = {m: (x.float() - mean[m]) / std[m] for m, x in rows.items()}
        mask = {m: present[index] & inside for m, present in corpus.present.items()}
        counted = corpus.annotated[index] & torch.stack(list(mask.values())).any(0)
        return Batch(inputs, mask, corpus.truth[index], counted)

    def to_frames(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of all windows in order, (W, L, columns), as one (frames, columns) float64 per video.

        A frame's value is the mean over the windows that cover it.
        """
        parts = np.split(values, np.cumsum([len(starts) for starts in self.starts])[:-1])
        frames = np.diff(self.corpus.start)
        return [
            overlap_mean(part, starts, int(n))
            for part, starts, n in zip(parts, self.starts, frames, strict=True)
        ]

    def ordered(self, batch: int) -> Iterator[Batch]:
        """All windows in order, `batch` at a time, faces from the centre."""
        for which in torch.arange(len(self), device=self.first.device).split(batch):
            yield self.gather(which)

    def shuffled(self, batch: int, seed: int) -> Iterator[Batch]:
        """All windows in the random order that `seed` gives, `batch` at a time, each with a view of its faces that
        `seed` draws evenly from those there are."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).to(self.first.device)
        views = torch.randint(1 + len(self.corpus.views), (len(self),), generator=generator)
        views = views.to(self.first.device)
        for which, view in zip(order.split(batch), views.split(batch), strict=True):
            yield self.gather(which, view)
