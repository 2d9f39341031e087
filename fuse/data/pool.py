"""Embeddings of a store's videos in memory, and the corpora that draw on them: each is read once, into its place,
however many corpora want it. All that can be wrong with labels, and how much room is needed, is known before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from affuse.errors import AffuseError, by_reason, counted, listed
from affuse.features import FeatureStore
from affuse.features.layout import VIEWS
from affuse.features.timeline import checked_width, frame_rate
from affuse.fuse.data.clock import Frames
from affuse.fuse.data.corpus import Corpus, Embeddings
from affuse.fuse.data.outline import Outline, fill, modality_of, outline
from affuse.fuse.data.room import Place, allocate, fits
from affuse.fuse.data.track import Track, lay

READERS = 2  # threads: HDF5 reads and checks one chunk at a time, whoever asks; the other one proves a seal or copies
SHOWN = 5  # videos that a message names


class Want(NamedTuple):
    """Videos that are to be a corpus; their labels {video: track}, or None; views: with all views of their faces."""

    videos: Iterable[str]
    tracks: Mapping[str, Track] | None = None
    views: bool = False


class Key(NamedTuple):
    """What is in memory: an array of shards, of these videos (id, and which file it was), read at a rate for a
    device."""

    array: str
    videos: tuple[tuple, ...]
    fps: float | None
    device: torch.device


@dataclass(frozen=True)
class Loaded:
    """place holds values (N + 1, width) float16, the first zeros; before {video: how many of them come before its own};
    known, what `Embeddings.moments` has found of them so far."""

    place: Place
    before: dict[str, int]
    known: dict = field(default_factory=dict)


class Labelled(NamedTuple):
    """A video with labels on the frames that a model reads, truth (T, targets) and annotated (T,); own, its own frames
    where these are others."""

    outline: Outline
    truth: np.ndarray
    annotated: np.ndarray
    own: Frames | None


class Pool:
    """The embeddings of a store's videos that have been read so far.

    together: videos that several corpora have parts of, as the folds of a cross-validation do: once one of them is
    wanted, all are read. shared: processes that are given the pool when they are started, on a CPU, have it without
    reading it again.
    """

    def __init__(self, store: FeatureStore, together: Iterable[str] = (), shared: bool = False):
        self.store, self.together, self.shared = store, tuple(dict.fromkeys(together)), shared
        self._outlines: dict[tuple, Outline] = {}
        self._loaded: dict[Key, Loaded] = {}

    def corpora(
        self,
        wants: Sequence[Want],
        modalities: list[str],
        targets: list[str],
        device: str | torch.device = "cpu",
        fps: float | None = None,
    ) -> list[Corpus]:
        """A corpus of each: every modality aligned to the frames, tracks laid on them.

        fps: frames per second; videos of another rate are laid on that clock (`resampled`). None: all on their own
        frames. A video with none of the modalities is left out, and said so in `left_out`. Raises AffuseError where
        labels do not fit their videos, naming the files, and where no video is left; UsageError where there is no room.
        """
        device, plans = torch.empty(0, device=device).device, []  # "cuda" is "cuda:0"
        for want in wants:
            want = want._replace(videos=tuple(dict.fromkeys(want.videos)))
            videos, left_out = self._labelled(want, modalities, targets, fps)
            plans.append((want, videos, left_out, self._keys(want, videos, modalities, fps, device)))
        self._load(list(dict.fromkeys(key for *_, keys in plans for key in keys)))
        return [self._corpus(*plan, targets, device) for plan in plans]

    # ---- before embeddings are read

    def _outline(self, video: str, fps: float | None) -> Outline:
        key = (video, fps, self.store.version(video))
        if key not in self._outlines:
            self._outlines[key] = outline(self.store, video, fps)
        return self._outlines[key]

    def _labelled(
        self, want: Want, modalities: list[str], targets: list[str], fps: float | None
    ) -> tuple[dict[str, Labelled], dict[str, str]]:
        """The videos that have something to work on, and why the others have not."""
        widths, videos, left_out, misfits = self.store.widths, {}, {}, []
        for name in want.videos:
            video = self._outline(name, fps)
            for m in modalities:
                part = getattr(video.entry, m)
                checked_width(name, m, part.rows, part.width, widths)
            if not any(len(video.used[m]) for m in modalities):
                left_out[name] = "; ".join(f"no {m}: {video.why_not(m)}" for m in modalities)
                continue
            track = None if want.tracks is None else want.tracks[name]
            try:
                laid, own = _laid(track, targets, video.time, video.frames), None
                if video.frames is not None:
                    present = {m: video.present[m] for m in modalities}
                    own = Frames(video.frames, present, *_laid(track, targets, video.frames))
            except AffuseError as error:
                misfits.append(str(error))
                continue
            videos[name] = Labelled(video, *laid, own)
        if misfits:
            raise AffuseError("\n".join(misfits))
        if not videos:
            raise AffuseError(_nothing(left_out))
        return videos, left_out

    def _keys(self, want: Want, videos: dict[str, Labelled], modalities: list[str], fps, device) -> list[Key]:
        """What a corpus draws on, one key for each modality and for each view."""
        group = self.together if set(want.videos) <= set(self.together) else want.videos
        files = tuple((name, self.store.version(name)) for name in group)
        views = [view for video in videos.values() for view in video.outline.entry.views if want.views]
        arrays = [f"{m}/embedding" for m in modalities]
        arrays += [f"{VIEWS}/{view}" for view in dict.fromkeys(views) if "visual" in modalities]
        return [Key(array, files, fps, device) for array in arrays]

    # ---- reading

    def _load(self, keys: list[Key]) -> None:
        """Have all of these in memory: room first, then video by video."""
        if not (missing := [key for key in keys if key not in self._loaded]):
            return
        fps, device, widths = missing[0].fps, missing[0].device, self.store.widths
        outlines = {name: self._outline(name, fps) for key in missing for name, _ in key.videos}
        rows = {key: [len(outlines[name].used[modality_of(key.array)]) for name, _ in key.videos] for key in missing}
        shapes = [(1 + sum(rows[key]), widths[modality_of(key.array)]) for key in missing]
        if not fits(shapes, device):  # what is not wanted now makes room
            self._loaded = {key: loaded for key, loaded in self._loaded.items() if key in keys}
        made, places = {}, {name: {} for name in outlines}
        whole = allocate(shapes, device, counted(len(outlines), "video"), self.shared)
        for key, place in zip(missing, whole, strict=True):
            values, names = place.values, [name for name, _ in key.videos]
            values[0], before = 0, np.cumsum([0, *rows[key]]).tolist()
            made[key] = Loaded(place, dict(zip(names, before, strict=False)))
            for name, (first, stop) in zip(names, pairwise(before), strict=True):
                if stop > first:
                    places[name][key.array] = values[1 + first : 1 + stop]
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(lambda name: self._read(outlines[name], places[name]), places))
        self._loaded |= made

    def _read(self, video: Outline, places: dict[str, Tensor]) -> None:
        """Read one video into its places {array: (rows, width)} on a device."""
        arrays = {
            array: place.numpy() if place.device.type == "cpu" else np.empty(place.shape, np.float16)
            for array, place in places.items()
        }
        fill(self.store, video, arrays)
        for array, place in places.items():
            if place.device.type != "cpu":
                place.copy_(torch.from_numpy(arrays[array]))

    def _corpus(
        self, want: Want, videos: dict[str, Labelled], left_out: dict[str, str], keys: list[Key], targets, device
    ) -> Corpus:
        embeddings = {}
        for key in keys:
            loaded, index = self._loaded[key], []
            for name, video in videos.items():
                place = video.outline.place[modality_of(key.array)]
                index.append(np.where(place > 0, place + np.int32(loaded.before[name]), np.int32(0)))
            where = torch.from_numpy(np.concatenate(index)).to(device)
            embeddings[key.array] = Embeddings(loaded.place.values, where, loaded.known)
        features = {modality_of(array): own for array, own in embeddings.items() if not array.startswith(VIEWS)}
        laid = videos.values()
        return Corpus(
            list(videos),
            list(targets),
            np.cumsum([0, *(len(video.annotated) for video in laid)]),
            np.concatenate([video.outline.time for video in laid]),
            features,
            {m: own.index > 0 for m, own in features.items()},
            torch.from_numpy(np.concatenate([video.truth for video in laid])).to(device),
            torch.from_numpy(np.concatenate([video.annotated for video in laid])).to(device),
            {name: want.tracks[name] for name in videos if want.tracks[name].time is not None} if want.tracks else {},
            left_out,
            {array.removeprefix(f"{VIEWS}/"): own for array, own in embeddings.items() if array.startswith(VIEWS)},
            {name: video.own for name, video in videos.items() if video.own},
            [frame_rate(video.own.time) for video in laid if video.own],
        )


def load_corpus(
    store: FeatureStore,
    videos: Iterable[str],
    modalities: list[str],
    targets: list[str],
    tracks: Mapping[str, Track] | None = None,
    device: str | torch.device = "cpu",
    views: bool = False,
    fps: float | None = None,
) -> Corpus:
    """One corpus, as `Pool.corpora` makes it."""
    (corpus,) = Pool(store).corpora([Want(videos, tracks, views)], modalities, targets, device, fps)
    return corpus


def _laid(track: Track | None, targets: list[str], *clocks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A track on frames, as `lay` has it; no label anywhere where there is none."""
    if track is None:
        rows = len(clocks[0])
        return np.zeros((rows, len(targets)), np.float32), np.zeros(rows, bool)
    return lay(track, targets, *clocks)


def _nothing(left_out: dict[str, str]) -> str:
    """A sentence on videos {id: why}, all of them without features."""
    if len(left_out) == 1:
        return "Video {!r} has no features to work on: {}".format(*next(iter(left_out.items())))
    some = "; ".join(f"{why} ({listed(names)})" for why, names in list(by_reason(left_out).items())[:SHOWN])
    return f"None of the {len(left_out)} videos has features to work on: {some}"
