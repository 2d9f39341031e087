"""Features and labels of many videos side by side on the device, and the digests that tell what they were."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from affuse.errors import AffuseError, by_reason, counted, listed
from affuse.features import FeatureStore, VideoFeatures, align
from affuse.features.resampling import resampled
from affuse.features.timeline import frame_rate, moments, on_clock, rows_at
from affuse.files import as_path, write_text
from affuse.fuse.data.clock import Frames
from affuse.fuse.data.partitions import AS_IT_IS, Split, find_labels
from affuse.fuse.data.track import Track, lay

log = logging.getLogger("affuse")

SHOWN = 5  # changes that a message names

Fingerprint = dict[str, dict[str, dict[str, str]]]
Features = FeatureStore | Path | str  # a store or its path


def as_store(features: Features) -> FeatureStore:
    """A store, or the store at a path. Raises UsageError for anything else."""
    if isinstance(features, FeatureStore):
        return features
    return FeatureStore(as_path("a FeatureStore or the path of one", features))


@dataclass
class Corpus:
    """Videos with their features, and labels where there are any; F is the number of all frames that a model reads.

    start (V+1,): video i's frames are start[i] … start[i+1]. time (F,) float64, seconds.
    features {modality: (F, width) float16}, present {modality: (F,) bool}; views {name: (F, width) float16}, what
    windows may see instead of features["visual"]; truth (F, targets) float32; annotated (F,) bool: every target has a
    label. timed {video id: labels with a clock of their own, which they are scored at}. left_out {video id: why}.
    resampled {video id: its own frames}, of the videos whose frames here are those of another clock; other_rates, the
    frames per second of each of these.
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
    resampled: dict[str, Frames] = field(default_factory=dict)
    other_rates: list[float] = field(default_factory=list)

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
        the moments of another clock."""
        where = self.frames(video)
        if self.videos[video] not in self.resampled:
            return values[where]
        time = self.own(video).time
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
        tensors = {
            part: {name: tensor[keep] for name, tensor in getattr(self, part).items()}
            for part in ("features", "present", "views")
        }
        return replace(
            self,
            videos=[self.videos[i] for i in kept],
            start=np.concatenate([[0], np.cumsum(counts[kept])]),
            time=self.time[rows],
            truth=self.truth[keep],
            annotated=self.annotated[keep],
            left_out=self.left_out | left_out,
            resampled={name: own.only(own.annotated) for name, own in self.resampled.items()},
            **tensors,
        )


def load_corpus(
    store: FeatureStore,
    videos: Iterable[str],
    modalities: list[str],
    targets: list[str],
    tracks: dict[str, Track] | None = None,
    device: str | torch.device = "cpu",
    views: bool = False,
    fps: float | None = None,
) -> Corpus:
    """Read videos from the store, align every modality to their frames, and lay their tracks on them.

    views: read all views of the faces, where the visual modality is wanted and the store has more than the centre.
    fps: frames per second; videos of another rate are laid on that clock (`resampled`). None: all on their own frames.

    A video with none of the modalities is left out, and said so in `left_out`. Raises AffuseError where
    labels do not fit their videos, naming the files, and where no video is left.
    """

    def labels(name: str, *clocks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        rows = len(clocks[0])
        unlabelled = np.zeros((rows, len(targets)), np.float32), np.zeros(rows, bool)
        return unlabelled if tracks is None else lay(tracks[name], targets, *clocks)

    laid: dict[str, tuple[np.ndarray, ...]] = {}  # of each video: time, truth, annotated
    rows = {m: [] for m in modalities}  # of each video: embedding, present
    further, left_out, misfits, before = [], {}, [], {}
    for name in dict.fromkeys(videos):
        video, time = store.read(name, modalities, views), store.frame_times(name)
        frames = None
        if fps and not on_clock(time, fps):
            frames, present = time, {m: rows_at(video, m, time)[1] for m in modalities}
            video, time = resampled(video, time, fps), moments(time, fps)
        aligned = align(video, time, modalities, store.widths)
        if not any(valid.any() for _, valid in aligned.values()):
            left_out[name] = "; ".join(f"no {m}: {_why(video, m)}" for m in modalities)
            continue
        try:
            laid[name] = time, *labels(name, time, frames)
            if frames is not None:
                before[name] = Frames(frames, present, *labels(name, frames))
        except AffuseError as error:
            misfits.append(str(error))
            continue
        for m, parts in aligned.items():
            rows[m].append([torch.from_numpy(part).to(device) for part in parts])
        if views and "visual" in modalities:
            seen = _aligned_views(video, time, store.widths)
            further.append({view: torch.from_numpy(faces).to(device) for view, faces in seen.items()})
    if misfits:
        raise AffuseError("\n".join(misfits))
    if not laid:
        raise AffuseError(_nothing(left_out))
    # A video without pictures has no views: its rows are zeros in all of them, as in the centre.
    named = dict.fromkeys(view for seen in further for view in seen)
    seen = {
        view: torch.cat([own.pop(view, centre) for own, (centre, _) in zip(further, rows["visual"], strict=True)])
        for view in named
    }
    time, truth, annotated = (np.concatenate(part) for part in zip(*laid.values(), strict=True))
    features, present = {}, {}
    for m in modalities:  # one modality after the other, so that only one is in memory twice
        features[m], present[m] = (torch.cat(parts) for parts in zip(*rows.pop(m), strict=True))
    return Corpus(
        list(laid),
        list(targets),
        np.concatenate([[0], np.cumsum([len(parts[0]) for parts in laid.values()])]),
        time,
        features,
        present,
        torch.from_numpy(truth).to(device),
        torch.from_numpy(annotated).to(device),
        {name: tracks[name] for name in laid if tracks[name].time is not None} if tracks else {},
        left_out,
        seen,
        before,
        [frame_rate(own.time) for own in before.values()],
    )


def _aligned_views(video: VideoFeatures, time: np.ndarray, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """{view: (T, width)}: every further view of the faces, laid on `time` as the centre is."""
    aligned = {}
    for view, embedding in video.visual.views.items():
        turned = replace(video, visual=replace(video.visual, embedding=embedding))
        aligned[view] = align(turned, time, ["visual"], widths)["visual"][0]
    return aligned


def _nothing(left_out: dict[str, str]) -> str:
    """A sentence on videos {id: why}, all of them without features."""
    if len(left_out) == 1:
        return "Video {!r} has no features to work on: {}".format(*next(iter(left_out.items())))
    some = "; ".join(f"{why} ({listed(names)})" for why, names in list(by_reason(left_out).items())[:5])
    return f"None of the {len(left_out)} videos has features to work on: {some}"


def _why(video: VideoFeatures, modality: str) -> str:
    part = getattr(video, modality)
    return f"{part.status.value} ({part.reason})" if part.reason else part.status.value


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


def fingerprint(store: FeatureStore, labels: Path, wanted: Split = AS_IT_IS) -> Fingerprint:
    """{"train" and "validation": {video: {"features", "labels"}}}, the digest of each; no "features" where the store
    lacks the video. Raises as `find_labels` and `FeatureStore.header` do."""
    split, kept = find_labels(labels, wanted), set(store.ids)
    return {
        partition: {
            video: {
                **({"features": store.header(video).features_digest} if video in kept else {}),
                "labels": _digest(path),
            }
            for video, path in split[partition].items()
        }
        for partition in ("train", "validation")
        if partition in split
    }


def keep(path: Path, data: Fingerprint) -> None:
    write_text(path, json.dumps(data, indent=1) + "\n")


def changes(path: Path, data: Fingerprint) -> str:
    """How the data differ from those kept at `path`, naming videos; empty where they do not."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return f"{path.name}, which tells what was trained on, is gone or damaged"
    old, new = (
        {video: (partition, found) for partition, videos in data.items() for video, found in videos.items()}
        for data in (before, data)
    )
    lines = []
    for video in sorted({*old, *new}):
        if video not in new or video not in old:
            lines.append(f"video {video!r} is {'new' if video in new else 'gone'}")
            continue
        (was, one), (partition, other) = old[video], new[video]
        if was != partition:
            lines.append(f"video {video!r} was in {was} and is in {partition} now")
        parts = [part for part in ("features", "labels") if one.get(part) != other.get(part)]
        if parts:
            lines.append(f"{' and '.join(parts)} of video {video!r} have changed")
    more = [f"{len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "; ".join(lines[:SHOWN] + more)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise AffuseError(f"Label file {path} cannot be read: {error}. Check the file.") from None
