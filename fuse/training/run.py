"""A trained model as a user holds it: it predicts, evaluates and explains on features of the kind it was trained on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from pathlib import Path
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
from affuse.files import as_path, file_name, make_folder, sha256_of
from affuse.fuse.data.clock import read_otherwise
from affuse.fuse.data.corpus import Corpus, Features, as_store, load_corpus, match
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import partition_files
from affuse.fuse.data.windows import Normalisation, Windows
from affuse.fuse.models.model import FusionModel, build_model, check_weights, load_weights
from affuse.fuse.reports.figures import explanation, save_figure
from affuse.fuse.reports.tables import write_csv
from affuse.fuse.scoring.evaluate import fit, judge, pairs, within
from affuse.fuse.scoring.explain import explained
from affuse.fuse.scoring.metrics import PERMUTATIONS
from affuse.fuse.scoring.predict import (
    SEEN_AS,
    Estimate,
    Prediction,
    Predictions,
    by_video,
    check_names,
    check_spans,
    predict_frames,
    summarised,
    write_summary,
)
from affuse.fuse.training.checkpoint import RunFolder, blaming, read_tensors, unprefixed
from affuse.fuse.training.memory import SHORT, check_prediction, measured
from affuse.fuse.training.settings import TrainSettings

log = logging.getLogger("affuse")

NO_DIFFERENCE = ("settings.views:", "settings.resample:", "settings.rates.", "settings.time_column:")  # in kind

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

    def predict(self, features: Features, ids: Iterable[str] | None = None, device: str = "auto") -> Predictions:
        """Predict on the videos of a store, or those in `ids`: cut into the run's windows, normalised as in training,
        averaged where windows overlap. Features may be float16. A video of another frame rate than the run's is read at
        the run's, and predicted on its own frames; a warning says of how many that was so.

        One video's features are in memory at a time; one without any of the run's modalities is in `failed`. Raises
        AffuseError for features made otherwise than the run's, UsageError for an id that the store does not have.
        """
        return Predictions(*self.each_video(features, ids, device, Run.predicted))

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
    ) -> dict:
        """Score the run on one partition of a label folder: what `judge` gives, with run and partition named,
        "left_out" {video: why} and "adjustment" {"smoothing", "delay": {target: seconds}}; of a run that says how sure
        it is, unadjusted, also what `within` gives.

        partition is train, validation, test, or "all" for a folder without a split. smooth, delay: "none", "fit" (on
        the train partition), or seconds. rate: rows per second of label files that do not say, where it is not the
        run's. Videos of other frame rates are scored on their own rows, too.

        Raises AffuseError for features made otherwise than the run's, labels that do not fit, or missing videos.
        """
        fitted = "fit" in (smooth, delay)
        if fitted and partition == "all":
            raise UsageError(
                "Smoothing and delay are fitted on training videos, and the partition all has them among those it "
                "scores. Score validation or test."
            )
        corpus, estimate = scored = self.predict_partition(features, labels, partition, device, rate)
        seen, basis = self.predict_partition(features, labels, "train", device, rate) if fitted else scored
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
        self, features: Features, labels: Path | str, partition: str, device: str = "auto", rate: float | None = None
    ) -> tuple[Corpus, Estimate]:
        """The labelled videos of one partition and the estimate for them. Raises as `evaluate` does."""
        here, store = self.on(device), as_store(features)
        self.check_features(store)
        settings = resolve(TrainSettings, self.settings.model_dump(), {} if rate is None else {"label_rate": rate})
        corpus = labelled_corpus(store, labels, partition, settings, here.model.targets, here.device, self.fps)
        return corpus, here.estimate(corpus)

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
        windows = Windows(corpus, self.model.window, self.settings.hop, self.normalisation)
        check_prediction(self.model, min(self.settings.batch, len(windows)), self.device)
        return windows

    def estimate(self, corpus: Corpus) -> Estimate:
        """What is predicted for a corpus on the run's device."""
        each = [
            predict_frames(run.model, run.windows(corpus), run.settings.batch, run.settings.precision).shifted(
                corpus, run.offsets
            )
            for run in (self, *self.others)
        ]
        return Estimate.together(each).widened(self.noise)

    def predicted(self, corpus: Corpus) -> Prediction:
        """The prediction for the one video of a corpus."""
        (prediction,) = by_video(corpus, self.estimate(corpus), self.model.options.name).values()
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
        self, features: Features, ids: Iterable[str] | None, device: str, make: Callable[[Run, Corpus], T]
    ) -> tuple[dict[str, T], dict[str, str]]:
        """{id: make(the run on the device, the video)} and {id: why it could not be read}. Raises as `predict` does."""
        store = as_store(features)
        self.check_features(store)
        ids = [ids] if isinstance(ids, str) else list(store.ids if ids is None else ids)
        if unknown := [video for video in ids if video not in store]:
            raise UsageError(f"Video {unknown[0]!r} is not in the store {store.path}{nearest(unknown[0], store.ids)}")
        here, made, failed, rates = self.on(device), {}, {}, []
        options = {"device": here.device, "fps": self.fps}
        for video in ids:
            try:
                corpus = load_corpus(store, [video], self.settings.modalities, self.model.targets, **options)
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
        the clock: features are read on the run's.
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


def load_run(path: Path | str | Iterable[Path | str]) -> Run:
    """Read a finished run; nothing of its training data is needed. The model is in evaluation mode, on the CPU. Of
    several paths one run, see `together`.

    Raises AffuseError when the folder holds no finished run.
    """
    if isinstance(path, (list, tuple)):
        return together([load_run(each) for each in path])
    folder = RunFolder(as_path("the path of a run", path))
    if folder.ensemble.exists():
        return _together(folder)
    if not folder.finished:
        if folder.config.exists():
            raise AffuseError(f"The run in {folder.path} is not finished. Go on with the same train command and --out.")
        raise AffuseError(f"{folder.path} is not a run folder: it has no {folder.model.name}. Check --run.")
    tensors, facts = read_tensors(folder.model)
    weights = unprefixed("model", tensors)
    with blaming(folder.model):
        if facts["model"]["window"] > SHORT:  # no memory is taken for weights that are not in the file
            check_weights(measured(facts["model"]), weights, "it")
        with torch.random.fork_rng(devices=[]):  # the weights drawn are replaced: nobody should feel the drawing
            model = build_model(**facts["model"])
        settings, provenance = resolve(TrainSettings, facts["settings"]), Provenance.from_dict(facts["provenance"])
        learned = {"noise": np.array(facts["noise"], float).reshape(len(model.targets)), "offsets": facts["offsets"]}
        best = {"epoch": int(facts["best"]["epoch"]), "ccc": dict(facts["best"]["ccc"])}
    load_weights(model, weights, str(folder.model))
    normalisation = Normalisation(unprefixed("mean", tensors), unprefixed("std", tensors))
    return Run(folder.path, model.eval(), normalisation, settings, provenance, best, facts["fps"], **learned)


def _together(folder: RunFolder) -> Run:
    """The run of several seeds in a folder, each as it was when they were put together."""
    with blaming(folder.ensemble):
        facts = json.loads(folder.ensemble.read_bytes())
        runs = {folder.member(int(seed)): digest for seed, digest in facts["seeds"].items()}
        for run, digest in runs.items():
            if not run.finished or sha256_of(run.model) != digest:
                raise AffuseError(
                    f"{run.path} is not as it was when it became a part of {folder.path}. Give the same training again."
                )
        first, *others = [load_run(run.path) for run in runs]
        noise = np.array(facts["noise"], float).reshape(len(first.model.targets))
        best = {**first.best, "ccc": dict(facts["ccc"])}
        if not (noise >= 0).all():
            raise ValueError(f"noise cannot be {facts['noise']}")
    return replace(first, path=folder.path, others=tuple(others), noise=noise, best=best)


def together(runs: Sequence[Run]) -> Run:
    """Of several runs, such as seeds or folds, one: it predicts the mean over their models, each of which counts once,
    and how far off that may be, by how far they are apart and by the mean of their own noise.

    Raises UsageError, saying how they differ, for runs that do not predict the same from the same features.
    """
    if not runs:
        raise UsageError("There is no run among none. Give the path of one at least.")
    first, *rest = runs
    for run in rest:
        if differences := first.apart(run):
            raise UsageError(
                f"{first.path} and {run.path} cannot predict together: {differences}. Leave one of them out."
            )
    members = [replace(member, others=()) for run in runs for member in (run, *run.others)]
    for one, other in permutations([run.path.resolve() for run in runs], 2):
        if one in (other, *other.parents):
            raise UsageError(f"The run {other} is given twice, or with one that it is a part of. Give each once.")
    if not rest:
        return first
    ccc = {target: float(np.mean([run.best["ccc"][target] for run in runs])) for target in first.best["ccc"]}
    noise = np.mean([run.noise for run in runs], axis=0)
    return replace(first, others=tuple(members[1:]), noise=noise, best={**first.best, "ccc": ccc})


def as_run(run: Run | Path | str | Iterable[Path | str]) -> Run:
    """A run, or the finished run at a path, or at several together. Raises UsageError for anything else."""
    if isinstance(run, (Run, list, tuple)):
        return run if isinstance(run, Run) else load_run(run)
    return load_run(as_path("a Run or the path of one", run))


def labelled_corpus(
    store: FeatureStore,
    labels: Path | str,
    partition: str,
    settings: TrainSettings,
    targets: Iterable[str],
    device: torch.device,
    fps: float | None,
    views: bool = False,
) -> Corpus:
    """The videos of one partition with their labels, and with `views` all views of their faces, on the device; fps as
    `load_corpus` has it."""
    files = partition_files(labels, partition, settings.split)
    videos = match(store, files, settings.allow_missing)
    tracks = {video: read_track(files[video], settings.label_rate) for video in videos}
    corpus = load_corpus(store, videos, settings.modalities, list(targets), tracks, device, views, fps)
    return corpus.closed(partition) if settings.gaps == "close" else corpus


def evaluate(run: Run | Path | str, store: Features, labels: Path | str, *args, **options) -> dict:
    """`Run.evaluate` of a run or the one at a path."""
    return as_run(run).evaluate(store, labels, *args, **options)


def predict(
    run: Run | Path | str | Iterable[Path | str],
    store: Features,
    out: Path | str,
    ids: Iterable[str] | None = None,
    device: str = "auto",
    figures: bool = True,
    smooth: float = 0.0,
    every: float | None = None,
    failed: Mapping[str, str] | None = None,
    beside: Callable[[Prediction], dict] = lambda made: {},
) -> dict:
    """`Run.predict` of a run or what `load_run` takes: every video saved in `out` as soon as it is made, and a summary.

    smooth: seconds, as `Prediction.smoothed` takes them; every: seconds that a row of the tables stands for, None a
    frame; failed: {id: why} of videos that never came into the store, for the summary; beside: makes more of each
    prediction, and gives its files.

    Gives {"written": {id: what `Prediction.save` gives}, "failed": {id: why}, "summary": the file}; raises as
    `Run.predict` does, and UsageError for seconds that cannot be.
    """
    check_spans(smooth, every)
    store, facts = as_store(store), {}
    ids = list(store.ids if ids is None else ids)
    check_names(ids)

    def save(here: Run, corpus: Corpus) -> dict:
        made = here.predicted(corpus).smoothed(smooth)
        facts[made.id] = made.facts()
        return {**made.save(out, figures, every), **beside(made)}

    written, unread = as_run(run).each_video(store, ids, device, save) if ids or not failed else ({}, {})
    failed = {**(failed or {}), **unread}
    return {"written": written, "failed": failed, "summary": write_summary(out, summarised(facts, failed))}


def explain(
    run: Run | Path | str, store: Features, out: Path | str, ids: Iterable[str] | None = None, device: str = "auto"
) -> dict:
    """`Run.explain` of a run or the one at a path: a CSV, empty where there is nothing, and a figure of every video in
    `out`. Gives and raises what `predict` does."""
    folder = as_path("a folder to write to", out)

    def save(here: Run, corpus: Corpus) -> dict:
        (video,), table = corpus.videos, here.explained(corpus)
        csv, figure = (folder / f"{file_name(video)}{suffix}" for suffix in (".csv", ".png"))
        make_folder(folder)
        write_csv(csv, table, "%.6f")
        save_figure(explanation(video, table, corpus.targets), figure)
        seen = {name: int(table[name].sum()) for name in (*SEEN_AS.values(), "valid") if name in table}
        return {"csv": str(csv), "figure": str(figure), "frames": len(table), **seen}

    written, failed = as_run(run).each_video(store, ids, device, save)
    return {"written": written, "failed": failed}
