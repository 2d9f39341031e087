"""A trained model as a user holds it: it predicts, evaluates and explains on features of the kind it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from affuse.config import nearest, resolve
from affuse.device import pick_device
from affuse.errors import AffuseError, UsageError
from affuse.features import FeatureStore
from affuse.features.record import Provenance, how_they_differ
from affuse.features.timeline import alike
from affuse.fuse.data.clock import read_otherwise
from affuse.fuse.data.corpus import Corpus, Features, as_store, match
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import partition_files
from affuse.fuse.data.pool import Pool, Want, load_corpus
from affuse.fuse.data.track import Track
from affuse.fuse.data.windows import Normalisation, Windows
from affuse.fuse.models.model import FusionModel
from affuse.fuse.scoring.estimate import Estimate, predict_frames
from affuse.fuse.scoring.evaluate import fit, judge, pairs, within
from affuse.fuse.scoring.explain import explained
from affuse.fuse.scoring.metrics import PERMUTATIONS
from affuse.fuse.scoring.predict import Prediction, Predictions, by_video
from affuse.fuse.training.memory import check_prediction
from affuse.fuse.training.settings import TrainSettings
from affuse.fuse.training.stream import RunStream, estimate_streamed

log = logging.getLogger("affuse")

# In kind.
NO_DIFFERENCE = tuple(f"settings.{key}" for key in ("views:", "resample:", "rates.", "time_column:", "live:"))

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained model with all it needs on new features. best: its epoch and validation CCC. fps: frames per second at
    which it reads features, None where it reads every video on its own frames. noise (targets,): the variance of its
    errors on validation videos that its deviations do not account for. offsets {video: (targets,)}: what is added to
    predictions of subjects it was trained on. others: runs whose predictions are taken together with this one's."""

    path: Path
    model: FusionModel
    normalisation: Normalisation
    settings: TrainSettings
    provenance: Provenance
    best: dict
    fps: float | None
    noise: np.ndarray
    offsets: dict[str, list[float]]
    others: tuple[Run, ...] = ()

    def predict(
        self, features: Features, ids: Iterable[str] | None = None, device: str = "auto", stream: bool = False
    ) -> Predictions:
        """Predict on the videos of a store, or those in `ids`: cut into the run's windows, normalised as in training,
        joined as its setting `overlap` says. Features may be float16. A video of another frame rate than the run's is
        read at the run's, and predicted on its own frames; a warning says of how many that was so. With `stream` every
        frame has the value that it has when nothing after it is known, see `stream`.

        One video's features are in memory at a time; one without any of the run's modalities is in `failed`. Raises
        AffuseError for features made otherwise than the run's, UsageError for an id that the store does not have.
        """
        return Predictions(*self.each_video(features, ids, device, lambda run, video: run.predicted(video, stream)))

    def stream(self, device: str = "auto", video: str = "") -> RunStream:
        """The run for one video as it comes, frame by frame. Raises UsageError for one whose model reads windows
        backwards, as with a BiLSTM."""
        return RunStream(self.on(device), video)

    def evaluate(
        self,
        features: Features,
        labels: Path | str,
        partition: str = "validation",
        device: str = "auto",
        smooth: str = "none",
        delay: str = "none",
        rate: float | None = None,
        permutations: int = PERMUTATIONS,
        stream: bool = False,
    ) -> dict:
        """Score the run on one partition of a label folder: what `judge` gives, with run and partition named,
        "left_out" {video: why} and "adjustment" {"smoothing", "delay": {target: seconds}}; of a run that says how sure
        it is, unadjusted, also what `within` gives.

        partition is train, validation, test, or "all" for a folder without a split. smooth, delay: "none", "fit" (on
        the train partition), or seconds. rate: rows per second of label files that do not say, where it is not the
        run's. Videos of other frame rates are scored on their own rows, too. stream: as `predict` has it.

        Raises AffuseError for features made otherwise than the run's, labels that do not fit, or missing videos.
        """
        if stream and smooth != "none":
            raise UsageError(f"--smooth {smooth} takes the mean over later frames, too. Leave it out, or --stream.")
        fitted = "fit" in (smooth, delay)
        if fitted and partition == "all":
            raise UsageError(
                "Smoothing and delay are fitted on training videos, and the partition all has them among those it "
                "scores. Score validation or test."
            )
        corpus, estimate = scored = self.predict_partition(features, labels, partition, device, rate, stream=stream)
        train = features, labels, "train", device, rate
        seen, basis = self.predict_partition(*train, stream=stream) if fitted else scored
        self.say_otherwise(corpus.other_rates)
        adjustment = fit(seen, basis.values, smooth, delay)
        unadjusted = estimate.deviation is not None and (smooth, delay) == ("none", "none")
        return {
            "run": str(self.path),
            "partition": partition,
            "adjustment": asdict(adjustment),
            **judge(pairs(corpus, adjustment(corpus, estimate.values)), corpus.targets, permutations),
            **(within(corpus, estimate) if unadjusted else {}),
            "left_out": dict(corpus.left_out),
        }

    def explain(
        self, features: Features, ids: Iterable[str] | None = None, device: str = "auto"
    ) -> dict[str, pd.DataFrame]:
        """What attention and gates did in every video, frame by frame; `explained` names the columns.

        Videos without any of the run's modalities are left out, with a warning. Raises as `predict` does, and
        UsageError for a model that has neither attention nor gates.
        """
        tables, failed = self.each_video(features, ids, device, Run.explained)
        for video, why in failed.items():
            log.warning("video %s is left out: %s", video, why)
        return tables

    def predict_partition(
        self,
        features: Features,
        labels: Path | str,
        partition: str,
        device: str = "auto",
        rate: float | None = None,
        pool: Pool | None = None,
        stream: bool = False,
    ) -> tuple[Corpus, Estimate]:
        """The labelled videos of one partition, drawn from a pool of these features where there is one, and the
        estimate for them. Raises as `evaluate` does."""
        here, store = self.on(device), as_store(features)
        self.check_features(store)
        settings = resolve(TrainSettings, self.settings.model_dump(), {} if rate is None else {"label_rate": rate})
        how = settings, here.model.targets, here.device, self.fps
        (corpus,) = labelled_corpora(pool or Pool(store), labels, {partition: False}, *how)
        return replace(corpus, held=stream), here.estimate(corpus, stream)

    # ---- one corpus, one video

    def on(self, device: str) -> Run:
        """The run on that device. Raises UsageError for one that is absent."""
        target = pick_device(device)
        others = tuple(other.on(device) for other in self.others)
        return replace(self, model=self.model.to(target), normalisation=self.normalisation.to(target), others=others)

    @property
    def device(self) -> torch.device:
        return next(iter(self.normalisation.mean.values())).device

    def windows(self, corpus: Corpus) -> Windows:
        settings = self.settings
        windows = Windows(corpus, self.model.window, settings.hop, self.normalisation, settings.overlap)
        check_prediction(self.model, min(settings.batch, len(windows)), self.device)
        return windows

    def estimate(self, corpus: Corpus, stream: bool = False) -> Estimate:
        """What is predicted for a corpus on the run's device; with `stream` of each frame when it comes."""
        if stream:
            return estimate_streamed(self, corpus)
        each = [
            predict_frames(run.model, run.windows(corpus), run.settings.batch, run.settings.precision).shifted(
                corpus, run.offsets
            )
            for run in (self, *self.others)
        ]
        return Estimate.together(each).widened(self.noise)

    def predicted(self, corpus: Corpus, stream: bool = False) -> Prediction:
        """The prediction for the one video of a corpus."""
        corpus = replace(corpus, held=stream)
        (prediction,) = by_video(corpus, self.estimate(corpus, stream), self.model.options.name).values()
        return prediction

    def explained(self, corpus: Corpus) -> pd.DataFrame:
        """What `explain` gives for the one video of a corpus."""
        if self.others:
            raise UsageError(f"{self.path} holds a model of each seed. Explain one of them, as {self.others[0].path}.")
        if not self.model.blocks:
            name, recursions = self.model.options.name, self.model.options.recursions
            raise UsageError(
                f"The model of {self.path}, {name!r} with {recursions} recursions, has no joint or cross-attention "
                "whose passes and gates could be shown. `affuse fuse predict` gives its predictions."
            )
        how = self.settings.batch, self.settings.precision
        return explained(self.model, self.windows(corpus), self.predicted(corpus), *how)

    def each_video(
        self,
        features: Features,
        ids: Iterable[str] | None,
        device: str,
        make: Callable[[Run, Corpus], T],
        tracks: Mapping[str, Track] = MappingProxyType({}),
    ) -> tuple[dict[str, T], dict[str, str]]:
        """{id: make(the run on the device, the video)} and {id: why it could not be read}; with the labels of those
        videos that have a track. Raises as `predict` does."""
        store = as_store(features)
        self.check_features(store)
        ids = [ids] if isinstance(ids, str) else list(store.ids if ids is None else ids)
        if unknown := [video for video in ids if video not in store]:
            raise UsageError(f"Video {unknown[0]!r} is not in the store {store.path}{nearest(unknown[0], store.ids)}")
        here, made, failed, rates = self.on(device), {}, {}, []
        options = {"device": here.device, "fps": self.fps}
        for video in ids:
            try:
                own = {video: tracks[video]} if video in tracks else None
                corpus = load_corpus(store, [video], self.settings.modalities, self.model.targets, own, **options)
            except AffuseError as error:
                failed[video] = str(error)
                continue
            made[video] = make(here, corpus)
            rates += corpus.other_rates
        self.say_otherwise(rates)
        return made, failed

    def say_otherwise(self, rates: list[float]) -> None:
        """Warn, once for all of them, of videos of these rates, which are not the run's."""
        if sentence := read_otherwise(rates, self.fps):
            log.warning(sentence)

    def check_features(self, store: FeatureStore) -> None:
        """Raise AffuseError, saying how they differ, unless the store's features are of the kind trained on."""
        provenance = store.provenance
        if differences := self.differences(provenance):
            raise AffuseError(
                f"The features in {store.path} were not made as those that {self.path} was trained on: "
                f"{differences}. Extract the videos again with the run's settings, or train on this store."
            )
        if provenance.untrained:
            log.warning("the features come from untrained backbones: %s", ", ".join(provenance.untrained))

    def differences(self, provenance: Provenance) -> str:
        """How features made so would differ from those trained on; empty where they would not.

        Views that only training draws from do not count: all else sees the centre, which they leave as it is. Nor does
        the clock: features are read on the run's. Nor that faces were followed live.
        """
        lines = how_they_differ(self.provenance, provenance)
        return "; ".join(line for line in lines if not line.startswith(NO_DIFFERENCE))

    def apart(self, other: Run) -> str:
        """What keeps it from predicting together with another; empty where nothing does."""
        told = {
            "targets": [", ".join(run.model.targets) for run in (self, other)],
            "modalities": [", ".join(run.settings.modalities) for run in (self, other)],
            "frames per second": [f"{run.fps:g}" if run.fps else "own" for run in (self, other)],
        }
        if self.fps and other.fps and alike(self.fps, other.fps):
            told.pop("frames per second")
        lines = [f"{name}: {one} → {another}" for name, (one, another) in told.items() if one != another]
        return "; ".join([*lines, self.differences(other.provenance)]).strip("; ")

    def __repr__(self) -> str:
        scores = ", ".join(f"{target} {value:.3f}" for target, value in self.best["ccc"].items())
        model = f"{self.model.options.name} of {', '.join(self.model.modalities)}"
        model += f", {1 + len(self.others)} models together" * bool(self.others)
        clock = f"at {self.fps:g} frames per second" if self.fps else "on any video's own frames"
        return f"<Run {str(self.path)!r}: {model}, {clock}; best epoch {self.best['epoch']}, validation CCC {scores}>"


def labelled_corpora(
    pool: Pool,
    labels: Path | str,
    partitions: Mapping[str, bool],
    settings: TrainSettings,
    targets: Iterable[str],
    device: torch.device,
    fps: float | None,
) -> list[Corpus]:
    """The videos of partitions {name: whether with all views of their faces} with their labels, on the device; fps as
    `Pool.corpora` has it."""
    wants = []
    for partition, views in partitions.items():
        files = partition_files(labels, partition, settings.split)
        videos = match(pool.store, files, settings.allow_missing)
        tracks = {video: read_track(files[video], settings.label_rate) for video in videos}
        wants.append(Want(videos, tracks, views))
    corpora = pool.corpora(wants, settings.modalities, list(targets), device, fps)
    if settings.gaps == "close":
        return [corpus.closed(partition) for corpus, partition in zip(corpora, partitions, strict=True)]
    return corpora
