"""What is to be compared: names such as `rjcma:paper@visual+audio` become settings, all checked before any training.

NAME[:VARIANT][@MODALITY+MODALITY…]      a model of `fuse.specs`, in a variant, over some modalities
all                                      every model of the family as released, one modality alone for each
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from features.config import nearest, resolve
from features.errors import UsageError
from fuse.models import build_model
from fuse.run import FREE_TO_CHANGE
from fuse.settings import TrainSettings
from fuse.specs import MODELS, VARIANTS

ALL = "all"


@dataclass(frozen=True)
class Entry:
    """A model as it stands in a table, and the settings that train it; the seed is set run by run."""

    name: str
    settings: TrainSettings
    targets: tuple[str, ...]
    identity: str  # the same for two entries that would train the same model in the same way

    @property
    def folder(self) -> str:
        """The name where every file system takes it: `rjcma:paper@visual` is `rjcma-paper-visual`."""
        return re.sub(r"[^\w+.]+", "-", self.name)

    def seeded(self, seed: int) -> TrainSettings:
        return resolve(TrainSettings, self.settings.model_dump(), {"seed": seed})


def parse_seeds(seeds: str) -> list[int]:
    """ "0,1,2" → [0, 1, 2], each once. Raises UsageError for anything that is not whole numbers."""
    try:
        chosen = list(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError:
        chosen = []
    if not chosen or min(chosen) < 0:
        raise UsageError(f"--seeds {seeds!r} must be whole numbers separated by commas, for example 0,1,2.")
    return chosen


def parse_name(name: str) -> dict:
    """A name as settings. Raises UsageError naming the nearest for an unknown model or variant."""
    rest, at, modalities = name.partition("@")
    model, colon, variant = rest.partition(":")
    if model not in MODELS:
        raise UsageError(f"Unknown model {model!r}{nearest(model, [*MODELS, ALL])}")
    changes: dict = {"model": model}
    if colon:
        if variant not in VARIANTS:
            raise UsageError(f"Unknown variant {variant!r} in {name!r}{nearest(variant, VARIANTS)}")
        if not MODELS[model].recursive:
            raise UsageError(
                f"Model {model!r} has no variants: its paper and its release agree. Name it {model!r}."
            )
        changes["variant"] = variant
    if at:
        changes["modalities"] = modalities.split("+")
    return changes


def make_entries(
    models: str | Iterable[str] | Mapping[str, dict], settings: TrainSettings, widths: dict[str, int]
) -> list[Entry]:
    """The entries to compare, in the order given.

    models    names as above, in one string with commas or one by one; or {any name: the settings in which it
              differs from `settings`}, which may set `model`, `modalities`, `channels`, `window` …
    settings  what all share. A model without modalities of its own takes those named here; where none are, those of
              its publication
    widths    of the store's features

    Raises UsageError, with the reasons of all, where a model does not exist or a combination cannot be.
    """
    if isinstance(models, str):
        models = [name.strip() for name in models.split(",") if name.strip()]
    if not isinstance(models, Mapping):
        models = _named(models, settings, widths)
    entries, problems = [], []
    for name, changes in models.items():
        try:
            entries.append(_entry(name, changes, settings, widths))
        except UsageError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise UsageError("\n".join(problems))
    if not entries:
        raise UsageError("No model is named. Give some, for example --models rjcma,concat, or --models all.")
    folders: dict[str, str] = {}
    for entry in entries:
        if folders.setdefault(entry.folder, entry.name) != entry.name:
            raise UsageError(
                f"{folders[entry.folder]!r} and {entry.name!r} would share the folder {entry.folder!r}. Rename one."
            )
    for entry in entries[1:]:
        if entry.targets != entries[0].targets:
            raise UsageError(
                f"{entries[0].name} predicts {', '.join(entries[0].targets)}, {entry.name} "
                f"{', '.join(entry.targets)}: models are compared on the same targets."
            )
    return entries


def _named(names: Iterable[str], settings: TrainSettings, widths: dict[str, int]) -> dict[str, dict]:
    chosen: dict[str, dict] = {}
    for name in names:
        if name != ALL:
            chosen[name] = parse_name(name)
            continue
        alone = settings.modalities if "modalities" in settings.model_fields_set else widths
        for model in MODELS:
            for each in [f"unimodal@{m}" for m in alone] if model == "unimodal" else [model]:
                chosen[each] = parse_name(each)
    return chosen


def _entry(name: str, changes: dict, settings: TrainSettings, widths: dict[str, int]) -> Entry:
    if "modalities" not in {*changes, *settings.model_fields_set}:
        model = changes.get("model", settings.model)
        if model in MODELS:
            changes = {**changes, "modalities": list(MODELS[model].standard)}
    resolved = resolve(TrainSettings, settings.model_dump(), changes)
    with torch.device("meta"):
        model = build_model(**resolved.model_options(widths))
    schedule = resolved.model_dump(exclude={*FREE_TO_CHANGE, *MODEL_SETTINGS, "seed", "preset"})
    identity = json.dumps([model.config, schedule], sort_keys=True)
    return Entry(name, resolved, model.targets, identity)


MODEL_SETTINGS = {  # what a model's own config says already, with nothing left to default
    "model", "variant", "recursions", "attention", "target", "modalities", "encoder", "gates", "channels", "dropout",
    "tied", "modality_dropout",
}  # fmt: skip
