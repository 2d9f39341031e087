"""The run folder: what a training leaves behind, and how a trained model is had from it again.

config.yaml        the resolved settings; `--config` takes it as it is
data.json          digests of the features and labels of each video
model.safetensors  best weights and normalisation; with them model options, settings, provenance of the features
metrics.csv        one row per epoch                events/   the same for TensorBoard
predictions/       one CSV per validation video     figures/  learning curve and predictions
card.md            the model card                   checkpoint.safetensors  while the run is unfinished
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from affuse.features import FeatureStore
from affuse.features.record import Provenance, how_they_differ
from affuse.fuse.data.corpus import Normalisation
from affuse.fuse.data.labels import find_labels
from affuse.fuse.models.model import FusionModel, build_model, load_weights
from affuse.fuse.models.registry import code, located
from affuse.fuse.training.checkpoint import prefixed, read_tensors, unprefixed, write_bytes, write_tensors
from affuse.fuse.training.settings import TrainSettings

from affuse.config import read_yaml
from affuse.errors import AffuseError, UsageError
from affuse.files import sweep
from affuse.version import VERSION

SHOWN = 5  # changes that a message names

Fingerprint = dict[str, dict[str, dict[str, str]]]


def fingerprint(store: FeatureStore, labels: Path, settings: TrainSettings) -> Fingerprint:
    """{"train" and "validation": {video: {"features", "labels"}}}, the digest of each; no "features" where the store
    lacks the video. Raises as `find_labels` and `FeatureStore.header` do."""
    split, kept = find_labels(labels, settings.validation, settings.resplit), set(store.ids)
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
    write_bytes(path, (json.dumps(data, indent=1) + "\n").encode())


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


# Settings that a resumed run may have otherwise, since no weight depends on them.
log = logging.getLogger("affuse")

FREE_TO_CHANGE = {"device", "tensorboard", "checkpoint_seconds"}


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def data(self) -> Path:
        return self.path / "data.json"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def card(self) -> Path:
        return self.path / "card.md"

    @property
    def finished(self) -> bool:
        """The model is written last but for the removal of the checkpoint."""
        return self.model.exists() and not self.checkpoint.exists()

    def check(self, settings: TrainSettings, data: Fingerprint) -> None:
        """See that a run with these settings on these data can begin here, or go on.

        Raises UsageError for a finished run, other settings (naming them), and a folder of other things; AffuseError
        where other data were trained on (naming the videos).
        """
        if not self.config.exists():
            if taken(self.path):
                raise UsageError(
                    f"{self.path} is not empty and holds no run. Choose another folder for --out."
                )
            return
        differences, changed = "; ".join(self.differences(settings)), self.changes(data)
        if self.finished:
            which = "these settings: nothing to do"
            which = f"these settings, made from other data ({changed})" if changed else which
            which = f"other settings ({differences})" if differences else which
            raise UsageError(
                f"{self.path} holds a finished run with {which}. Evaluate it, or choose another --out."
            )
        if differences:
            raise UsageError(
                f"{self.path} holds an unfinished run with other settings: {differences}. Give the same ones "
                f"(--config {self.config}), or choose another folder for --out."
            )
        if changed:
            raise AffuseError(
                f"{self.path} holds an unfinished run that began with other data: {changed}. Bring the data back to "
                "go on with it, or choose another folder for --out to train on what is there now."
            )

    def holds(self, settings: TrainSettings, data: Fingerprint) -> bool:
        """Whether a finished run with these settings on these data is here. Raises UsageError for a finished one with
        other settings."""
        if not self.finished:
            return False
        if differences := "; ".join(self.differences(settings)):
            raise UsageError(
                f"{self.path} holds a finished run with other settings: {differences}. Give the same ones, or choose "
                "another folder for --out."
            )
        return not self.changes(data)

    def begin(self, settings: TrainSettings, data: Fingerprint) -> None:
        """Make the folder with settings and data, unless there is one to go on with."""
        if self.config.exists():
            sweep(self.path)
        else:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"Run folder {self.path} cannot be made: {error.strerror}.") from None
            head = "# The resolved settings of this run. Train again with --config and this file.\n"
            text = yaml.safe_dump(settings.model_dump(), sort_keys=False)
            write_bytes(self.config, f"{head}{text}".encode())
            for name, content in code(settings.model):
                write_bytes(self.path / name, content)
        if not self.checkpoint.exists():
            keep(self.data, data)

    def discard(self) -> None:
        """Forget what was trained here but for the settings."""
        for path in (self.model, self.checkpoint, self.data, self.metrics, self.card):
            path.unlink(missing_ok=True)
        for folder in ("events", "predictions", "figures"):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    def changes(self, data: Fingerprint) -> str:
        """How these data differ from those that were trained on here; empty where they do not or nothing was."""
        trained = self.model.exists() or self.checkpoint.exists()
        return changes(self.data, data) if trained else ""

    def differences(self, settings: TrainSettings) -> list[str]:
        """How the settings in the folder differ from these, those of `FREE_TO_CHANGE` aside."""
        there, here = read_yaml(self.config), settings.model_dump()
        copies = [(self.path / name, content) for name, content in code(settings.model)]
        return [
            f"{copy.name} is not what it was"
            for copy, content in copies
            if copy.exists() and copy.read_bytes() != content
        ] + [
            f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
            for key in dict.fromkeys([*there, *here])
            if key not in FREE_TO_CHANGE and there.get(key) != here.get(key)
        ]

    def write_metrics(self, history: list[dict]) -> None:
        """One row per epoch, numbers in full precision."""
        text = io.StringIO()
        writer = csv.DictWriter(text, history[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_bytes(self.metrics, text.getvalue().encode())

    def write_model(self, model, weights, normalisation, settings, provenance, best: dict) -> None:
        """The best weights with everything that is needed to use them."""
        tensors = prefixed("model", weights)
        for m in normalisation.mean:
            tensors |= {f"mean.{m}": normalisation.mean[m], f"std.{m}": normalisation.std[m]}
        facts = {
            "version": VERSION,
            "git": git_revision(),
            "model": {**model.config, "name": located(model.config["name"], self.path)},
            "settings": settings.model_dump(),
            "provenance": provenance.as_dict(),
            "best": best,
        }
        write_tensors(self.model, tensors, facts)


@dataclass(frozen=True)
class Run:
    """A trained model with all it needs on new features. best: its epoch and validation CCC."""

    path: Path
    model: FusionModel
    normalisation: Normalisation
    settings: TrainSettings
    provenance: Provenance
    best: dict

    def check_features(self, store: FeatureStore) -> None:
        """Raise AffuseError, saying how they differ, unless the store's features are of the kind trained
        on."""
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

        Views that only training draws from do not count: all else sees the centre, which they leave as it is.
        """
        lines = how_they_differ(self.provenance, provenance)
        return "; ".join(line for line in lines if not line.startswith("settings.views:"))


def taken(path: Path) -> bool:
    """Whether a folder has anything in it but what a killed process left half written."""
    return path.is_dir() and any(not found.name.endswith(".partial") for found in path.iterdir())


def load_run(path: Path) -> Run:
    """Read a finished run; nothing of its training data is needed. The model is in evaluation mode, on the
    CPU.

    Raises AffuseError when the folder holds no finished run.
    """
    folder = RunFolder(Path(path))
    if not folder.finished:
        if folder.config.exists():
            raise AffuseError(
                f"The run in {folder.path} is not finished. Go on with the same train command and --out."
            )
        raise AffuseError(f"{folder.path} is not a run folder: it has no {folder.model.name}. Check --run.")
    tensors, facts = read_tensors(folder.model)
    with torch.random.fork_rng(devices=[]):  # the weights drawn are replaced: nobody should feel the drawing
        model = build_model(**facts["model"])
    load_weights(model, unprefixed("model", tensors), str(folder.model))
    return Run(
        folder.path,
        model.eval(),
        Normalisation(unprefixed("mean", tensors), unprefixed("std", tensors)),
        TrainSettings(**facts["settings"]),
        Provenance.from_dict(facts["provenance"]),
        facts["best"],
    )


def file_name(video: str) -> str:
    """A video id as a file name, different for different ids: what file systems do not take becomes %XX."""
    return re.sub(r'[/\\:*?"<>|%\x00-\x1f]', lambda found: f"%{ord(found[0]):02X}", video)


def write_predictions(
    path: Path, time: np.ndarray, targets: list[str], prediction: np.ndarray, valid
) -> None:
    """CSV with one row per frame: time in seconds, each target, and valid, 1 where some modality was
    present."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    columns = np.column_stack([time, prediction, valid])
    formats = ["%.6f"] * (1 + len(targets)) + ["%d"]
    np.savetxt(text, columns, formats, ",", header=",".join(["time", *targets, "valid"]), comments="")
    write_bytes(path, text.getvalue().encode())


def git_revision() -> str:
    """The commit of the code that runs, with "+" when it has been changed since; empty outside a
    repository."""
    here = ["git", "-C", str(Path(__file__).parent)]
    questions = (
        ["ls-files", "--error-unmatch", Path(__file__).name],
        ["rev-parse", "HEAD"],
        ["status", "-suno"],
    )
    try:
        answers = [subprocess.run([*here, *q], capture_output=True, text=True) for q in questions]  # noqa: S603
    except OSError:
        return ""
    if any(answer.returncode for answer in answers):
        return ""
    return answers[1].stdout.strip() + ("+" if answers[2].stdout.strip() else "")
