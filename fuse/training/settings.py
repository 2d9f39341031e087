"""Everything that decides a training run.

Precedence: preset ← settings file ← named options ← `--set key=value`. A run folder keeps the resolved result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator

from affuse.config import merge, nearest, parse_assignments, read_yaml, resolve
from affuse.device import Precision
from affuse.errors import UsageError
from affuse.features.parts import MODALITIES
from affuse.features.resampling import FASTEST
from affuse.fuse.data.partitions import Split
from affuse.fuse.models.model import build_model
from affuse.fuse.models.registry import find, located
from affuse.fuse.models.spec import ModelSettings
from affuse.fuse.training.presets import PRESETS
from affuse.fuse.training.subjects import read_subjects

RULES = ("common", "equal", "own")  # for the frame rate
NARROWEST, WIDEST = 32, 512


def widest(frames: int, width: int) -> int:
    """How wide a layer may be with so many annotated training frames, and features of a width.

    The power of two whose square, of which a layer's weights are a multiple, is nearest a sixteenth of the frames: 32
    up to 32,768 of them, 64 up to 131,072 … 512. Beyond 32, no wider than four times the features.
    """
    of_frames = 2 ** math.ceil(math.log2(max(frames, 1) / 16) / 2 - 0.5)
    return min(max(NARROWEST, min(of_frames, 4 * width)), WIDEST)


class TrainSettings(ModelSettings):
    """One run's settings, the model's among them. Lengths are frames, rates are per step, patience is epochs."""

    preset: str = Field("affuse", json_schema_extra={"enum": [*PRESETS]})
    """What the other settings are by default: ours, affuse, or how a paper's release trains."""

    model: str = "rjcma"
    """The fusion model: one that `affuse fuse models` lists, or one of yours, file.py:name."""
    modalities: list[str] = Field(
        default_factory=lambda: [*MODALITIES],
        examples=[["visual", "audio"]],
        json_schema_extra={"items": {"enum": [*MODALITIES]}},
    )
    """What the model sees."""

    size: Literal["data", "published"] = "data"
    """Of the encoders' layers: published, as in the model's release; data, no wider than the amount of data allows.
    `channels` comes before both."""
    hop: int = Field(200, ge=1)
    """Frames from the beginning of one window to that of the next; at most `window`."""
    overlap: Literal["mean", "past"] = "mean"
    """What is predicted of a frame that several windows cover: the mean of what they say; past, what the one says that
    shows most of what came before the frame."""
    gaps: Literal["mask", "close"] = "mask"
    """Frames without a label: kept and masked, or taken out before windows are cut (close)."""
    normalisation: Literal["channels", "text", "none"] = "channels"
    """channels: every channel by its own mean and deviation; text: the text embeddings, all by one mean and one
    deviation, and nothing else; none: features as they are."""
    shuffle: Literal["epoch", "once"] = "epoch"
    """Windows in a new order every epoch, or in one for all."""
    fps: Annotated[float, Field(gt=0, le=FASTEST)] | Literal["common", "equal", "own"] = "common"
    """Frames per second at which the model reads features. common: the rate of most training videos; equal: that of
    all, which must be one; own: every video on its own frames. Rates within 1 % of each other are one."""
    views: bool = True
    """Each training window sees one of the views that the store has of its faces; false: the centre alone."""

    modality_dropout: float = Field(0.2, json_schema_extra={"minimum": 0, "exclusiveMaximum": 1})
    """Probability, in training, of leaving out each modality of a window but one; none where there is one only."""
    loss: Literal["ccc", "ccc-batch", "mse", "ccc+mse", "gaussian"] = "ccc-batch"
    """What training minimises: 1 − CCC per window or over the batch (ccc-batch), the mean square error, both together,
    or a likelihood, with which every prediction says how sure it is (gaussian)."""
    optimiser: Literal["adam", "adamw"] = "adamw"
    """What takes the steps; adamw keeps the weight decay apart from the gradient."""
    learning_rate: float = Field(1e-3, gt=0)
    """Rate of a step, after the warm-up."""
    weight_decay: float = Field(1e-2, ge=0)
    """How strongly weights are drawn to 0."""
    batch: int = Field(12, ge=1)
    """Windows of a step."""
    epochs: int = Field(40, ge=1)
    """Passes over the training windows, at most."""
    warmup: Literal["linear", "sawtooth", "stairs"] = "linear"
    """How the rate rises in a warm-up: linear, with every step; stairs, with every epoch; sawtooth, from 0 anew in
    every epoch, higher each time."""
    warmup_epochs: int = Field(2, ge=0)
    """Epochs in which the rate rises."""
    decay: float = Field(1.0, gt=0, le=1)
    """What the rate is multiplied by after `decay_start`, once in `decay_every` epochs."""
    decay_start: int = Field(0, ge=0)
    """Epochs before the first decay of the rate."""
    decay_every: int = Field(1, ge=1)
    """Epochs from one decay of the rate to the next."""
    plateau_factor: float = Field(0.3, gt=0, le=1)
    """What the rate is multiplied by after more than `plateau_patience` epochs without gain."""
    plateau_patience: int = Field(5, ge=1)
    """Epochs without gain after which the next one cuts the rate."""
    min_learning_rate: float = Field(0.0, ge=0)
    """A plateau that leads below it ends the run, or restarts it; at most `learning_rate`."""
    restarts: int = Field(0, ge=0)
    """How often the run restarts: from the best weights, with a warm-up and a new optimiser."""
    reload_best: bool = False
    """Go on from the best weights after every epoch."""
    stop_patience: int = Field(12, ge=0)
    """Epochs without gain before the end; 0: never."""

    validation: list[str] = Field(default_factory=list)
    """Ids of the videos that validate, where the label folder has no train/ and validation/ of its own."""
    resplit: bool = False
    """`validation` divides train/ and validation/ together anew; test/ is never touched."""
    held_out: list[str] = Field(default_factory=list)
    """Ids of videos that neither train nor validate."""
    choose: Literal["scored", "inner"] = "scored"
    """In crossval, by which fold each one's epoch is chosen: the one that is scored, or an inner one."""
    subjects: dict[str, str] = Field(default_factory=dict)
    """Whose each video is, {video: subject}, or a CSV with these columns: how far off the model is on a subject's
    training videos is added to what it predicts of that subject's others."""
    label_rate: float | None = Field(None, gt=0, le=1e6)
    """Rows per second of label files that do not say."""
    allow_missing: bool = False
    """Leave out labelled videos that the store lacks."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of weights, order and dropout."""
    device: str = "auto"
    """Where the model computes: cpu, cuda, cuda:1, or auto."""
    precision: Precision | Literal["auto"] = "auto"
    """The numbers that the model computes in, but for head and loss, which are float32. auto: bfloat16 where the
    hardware is much faster at it, else float32; decided when the run begins, and kept by it."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """CPU threads that the model computes with, on which its numbers depend a little. auto: of one training alone as
    many as torch takes, of each of several 1; decided when the run begins, and kept by it."""
    tensorboard: bool = True
    """Write TensorBoard events."""
    checkpoint_seconds: float = Field(10.0, ge=0)
    """Least seconds between two checkpoints; 0: after every epoch."""

    @field_validator("model")
    @classmethod
    def _holds_everywhere(cls, model: str) -> str:
        return located(model)

    @field_validator("modalities", "channels")
    @classmethod
    def _known_modalities(cls, names: list[str] | dict | None) -> list[str] | dict | None:
        for name in names or ():
            if name not in MODALITIES:
                raise ValueError(f"unknown modality {name!r}{nearest(name, MODALITIES)}")
        return names

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        if not names or len(set(names)) != len(names):
            raise ValueError("name at least one modality, and each once")
        return names

    @field_validator("fps", mode="before")
    @classmethod
    def _rate_or_rule(cls, fps: float | str) -> float | str:
        if fps in RULES:
            return fps
        if not isinstance(fps, int | float) or not 0 < fps <= FASTEST:
            raise ValueError(f"expected {', '.join(RULES)}, or frames per second, up to {FASTEST:g}")
        return float(fps)

    @field_validator("subjects", mode="before")
    @classmethod
    def _from_a_table(cls, subjects: dict | str | Path) -> dict:
        return read_subjects(subjects) if isinstance(subjects, str | Path) else subjects

    @field_validator("loss")
    @classmethod
    def _learns_deviations(cls, loss: str, info: ValidationInfo) -> str:
        if info.data.get("deviations") and loss != "gaussian":
            raise ValueError("only gaussian teaches a model its deviations; leave `deviations` to it")
        return loss

    @field_validator("min_learning_rate")
    @classmethod
    def _is_below_the_rate(cls, least: float, info: ValidationInfo) -> float:
        if least > info.data.get("learning_rate", least):
            raise ValueError(f"it is above learning_rate ({info.data['learning_rate']:g}): training would end at once")
        return least

    @field_validator("hop")
    @classmethod
    def _leaves_no_frame_out(cls, hop: int, info: ValidationInfo) -> int:
        window = info.data.get("window", hop)
        if hop > window:
            raise ValueError(f"a hop longer than the window ({window}) would skip frames")
        return hop

    @property
    def split(self) -> Split:
        return Split(self.validation, self.resplit, self.held_out)

    def model_options(self, widths: dict[str, int], frames: int | None = None) -> dict:
        """The arguments of `build_model`, for a training set of so many annotated frames; published sizes where that is
        not known. Raises UsageError for a modality that has no width."""
        for m in self.modalities:
            if m not in widths:
                raise UsageError(
                    f"The features have no {m}, only {', '.join(widths)}. Leave it out, for example --set "
                    f"modalities=[{','.join(w for w in widths)}], or extract the videos again with it."
                )
        here = {m: widths[m] for m in self.modalities}
        own = {key: getattr(self, key) for key in ModelSettings.model_fields}
        own["deviations"] = self.loss == "gaussian" and not find(self.model).fit
        own["modality_dropout"] *= len(self.modalities) > 1
        if of_preset := PRESETS[self.preset].get("dropout"):  # made for other models, too
            with torch.device("meta"):
                idle = build_model(self.model, here, **{**own, "dropout": {}}).idle
            own["dropout"] = {p: q for p, q in self.dropout.items() if p not in idle or q != of_preset.get(p)}
        own["channels"] = {m: c for m, c in (self.channels or {}).items() if m in self.modalities}
        if self.size == "data" and frames is not None:
            published = find(self.model).channels
            fitting = {m: [min(c, widest(frames, widths[m])) for c in published[m]] for m in self.modalities}
            own["channels"] = fitting | own["channels"]
        return {"name": self.model, "widths": here, **own}


def as_settings(settings: TrainSettings | dict | None) -> TrainSettings:
    """Settings, or those of a dictionary, or all as they are by default. Raises UsageError for anything else."""
    if settings is not None and not isinstance(settings, TrainSettings | dict):
        raise UsageError(f"Settings are made by train_settings(…), or a dictionary of them, not {settings!r}.")
    return settings if isinstance(settings, TrainSettings) else train_settings(**settings or {})


def train_settings(config: Path | None = None, assignments: Iterable[str] = (), **options) -> TrainSettings:
    """Resolve settings from a YAML file, `key=value` assignments and named options; an option of None is absent.

    Raises UsageError for an unknown key or preset, naming the nearest, and for a value that cannot be.
    """
    layers = [
        read_yaml(config) if config else {},
        {key: value for key, value in options.items() if value is not None},
        parse_assignments(list(assignments)),
    ]
    preset = merge({}, *layers).get("preset", TrainSettings.model_fields["preset"].default)
    return resolve(TrainSettings, preset_of(preset), *layers)


def preset_of(name: str) -> dict:
    """All that one preset or another decides, as this one has it. Raises UsageError for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"Unknown preset {name!r}{nearest(name, PRESETS)}")
    decided = {key: TrainSettings.model_fields[key] for preset in PRESETS.values() for key in preset}
    return {key: field.get_default(call_default_factory=True) for key, field in decided.items()} | PRESETS[name]
