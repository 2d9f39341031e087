"""What is to be compared, and the runs that are compared: several models with several seeds under one protocol.

NAME[:VARIANT][@MODALITY+MODALITY…]      a model of the registry or FILE.py:NAME, in a variant, over some modalities
all                                      every model of the family as released, one modality alone for each; not
                                         `mean`, whose inputs are predictions

Everything is checked before any training. A folder of trials can be stopped at any moment and gone on with: a finished
run is taken as it is, an unfinished one goes on from its checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from affuse.config import nearest, resolve
from affuse.errors import AffuseError, UsageError
from affuse.features import FeatureStore
from affuse.files import make_folder
from affuse.fuse.data.fingerprint import Fingerprint, changes, fingerprint, keep
from affuse.fuse.data.pool import Pool
from affuse.fuse.models.model import build_model
from affuse.fuse.models.registry import MODELS, find
from affuse.fuse.models.spec import VARIANTS, ModelSettings
from affuse.fuse.scoring.evaluate import pairs, score_pairs
from affuse.fuse.scoring.metrics import Difference, Pairs, moments, paired_bootstrap
from affuse.fuse.training.checkpoint import FREE_TO_CHANGE, RunFolder, taken
from affuse.fuse.training.loading import load_run
from affuse.fuse.training.parallel import Trained, Training, train_each
from affuse.fuse.training.settings import TrainSettings, preset_of

DATA = "data.json"  # what all runs are made from
ALL = "all"
NAME = re.compile(r"(?s)((?:.*\.py:)?[^:@]*)(?::([^@]*))?(?:@(.*))?")  # model, variant, modalities


@dataclass(frozen=True)
class Entry:
    """A model as it stands in a table, and the settings that train it; the seed is set run by run."""

    name: str
    settings: TrainSettings
    targets: tuple[str, ...]
    identity: str  # the same for two entries that would train the same model in the same way

    @property
    def folder(self) -> str:
        return folder_name(self.name)

    def seeded(self, seed: int) -> TrainSettings:
        return resolve(TrainSettings, self.settings.model_dump(), {"seed": seed})


def folder_name(model: str) -> str:
    """A model's name where every file system takes it: `rjcma:paper@visual` is `rjcma-paper-visual`."""
    return re.sub(r"[^\w+.]+", "-", model)


def parse_name(name: str) -> dict:
    """A name as settings. Raises UsageError naming the nearest for an unknown model or variant."""
    model, variant, modalities = NAME.fullmatch(name).groups()
    recursions = find(model).recursions
    changes: dict = {"model": model}
    if variant is not None:
        if variant not in VARIANTS:
            raise UsageError(f"Unknown variant {variant!r} in {name!r}{nearest(variant, VARIANTS)}")
        if variant not in recursions:
            raise UsageError(f"Model {model!r} has no variants: its paper and its release agree. Name it {model!r}.")
        changes["variant"] = variant
    if modalities is not None:
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
    for name, own in models.items():
        try:
            entries.append(_entry(name, own, settings, widths))
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
    alone = settings.modalities if "modalities" in settings.model_fields_set else widths
    family = [*(model for model in MODELS if model not in ("mean", "unimodal")), *(f"unimodal@{m}" for m in alone)]
    return {each: parse_name(each) for name in names for each in (family if name == ALL else [name])}


def _entry(name: str, changes: dict, settings: TrainSettings, widths: dict[str, int]) -> Entry:
    if "modalities" not in {*changes, *settings.model_fields_set}:
        changes = {**changes, "modalities": list(find(changes.get("model", settings.model)).standard)}
    preset = preset_of(changes["preset"]) if "preset" in changes else {}
    resolved = resolve(TrainSettings, settings.model_dump(), preset, changes)
    with torch.device("meta"):
        model = build_model(**resolved.model_options(widths))
    said = {"model", "modalities", *ModelSettings.model_fields}  # by the model's config, with nothing left open
    if resolved.size == "data":
        said.remove("channels")  # but these, which training fits to its frames where none are named
    schedule = resolved.model_dump(exclude={*FREE_TO_CHANGE, *said, "seed", "preset"})
    identity = json.dumps([model.config, schedule], sort_keys=True)
    return Entry(name, resolved, model.targets, identity)


@dataclass(frozen=True)
class Trials:
    """What every model and seed came to on the validation videos.

    scores     one row per model and seed: model, seed, the CCC of each target, mean, videos, parameters, epochs,
               best_epoch, seconds_per_epoch (median), run
    sums       {model: {video: (seeds, 6, targets)}}, the moments of `affuse.fuse.scoring.metrics`
    """

    targets: list[str]
    seeds: list[int]
    scores: pd.DataFrame
    sums: dict[str, dict[str, np.ndarray]]

    def summary(self) -> pd.DataFrame:
        """One row per model, in order: mean and sample standard deviation over seeds (NaN for one seed) of each CCC.

        Columns: for every target and mean, `<name>` and `<name>_sd`; then seeds, videos, parameters, seconds_per_epoch.
        """
        columns = [*self.targets, "mean"]
        grouped = self.scores.groupby("model", sort=False)
        scores = grouped[columns].mean().join(grouped[columns].std(ddof=1).add_suffix("_sd"))
        return scores[[name for column in columns for name in (column, f"{column}_sd")]].assign(
            seeds=grouped.size(),
            videos=grouped["videos"].min(),
            parameters=grouped["parameters"].first(),
            seconds_per_epoch=grouped["seconds_per_epoch"].median(),
        )

    def difference(self, one: str, other: str) -> tuple[Difference, int]:
        """The paired bootstrap of CCC(one) − CCC(other), and how many videos both have predictions for."""
        videos = [video for video in self.sums[one] if video in self.sums[other]]
        if not videos:
            raise AffuseError(f"{one} and {other} have no video in common that both can predict.")
        pair = (np.stack([self.sums[name][video] for video in videos], 1) for name in (one, other))
        return paired_bootstrap(*pair), len(videos)

    def differences(self, reference: str, others: Iterable[str]) -> pd.DataFrame:
        """CCC of the reference less that of every other model, one row per model and target (the mean last).

        Columns: model, target, videos, difference, low and high (95 %), above_zero: the share of resamples in which
        the reference is ahead. Only videos count for which both models have a prediction.
        """
        rows = []
        for name in others:
            found, videos = self.difference(reference, name)
            columns = zip([*self.targets, "mean"], *(column.tolist() for column in found), strict=True)
            rows += [[name, target, videos, *values] for target, *values in columns]
        columns = ["model", "target", "videos", "difference", "low", "high", "above_zero"]
        return pd.DataFrame(rows, columns=columns)


def run_trials(
    store: FeatureStore,
    labels: Path | str,
    out: Path,
    entries: list[Entry],
    seeds: list[int],
    announce: Callable[[str], None],
    on_epoch: Callable[[dict], None] | None = None,
    jobs: int | None = 1,
) -> Trials:
    """Train what is not trained yet into `<out>/runs/<model>-seed<k>`, so many at the same time, and score everything.

    Entries that are the same model share their runs. Raises before any training: UsageError for a run folder that is
    taken by another run, AffuseError where the folder's runs were made from other data. What trainings raise is raised
    when all have ended, with the models' names in front.
    """
    owners: dict[str, Entry] = {}
    for entry in entries:
        owners.setdefault(entry.identity, entry)
    plan = [(entry, seed) for entry in owners.values() for seed in seeds]
    trainings = [
        Training(f"{e.name}, seed {seed}", RunFolder(out / "runs" / f"{e.folder}-seed{seed}"), e.seeded(seed))
        for e, seed in plan
    ]
    data = fingerprint(store, labels, entries[0].settings.split)
    check_folder(out, data)
    for run in trainings:
        run.folder.check(run.settings, data)
    rows, sums = {}, {}

    def say(number: int, what: str) -> None:
        announce(f"[{number + 1}/{len(plan)}] {trainings[number].name}: {what}")

    def score_run(number: int, trained: Trained) -> None:
        entry, seed = plan[number]
        key = entry.identity, seed
        rows[key], sums[key] = _score(trainings[number].folder, pairs(trained.corpus, trained.estimate.values))
        say(number, f"validation CCC {rows[key]['mean']:.3f}{'' if trained.now else ' (trained before)'}")

    pool = Pool(store, shared=jobs != 1)
    train_each(pool, labels, trainings, jobs, lambda number: say(number, "training"), on_epoch, score_run)
    scores = [{"model": e.name, "seed": seed, **rows[e.identity, seed]} for e in entries for seed in seeds]
    return Trials(
        list(entries[0].targets),
        list(seeds),
        pd.DataFrame(scores),
        {
            e.name: {v: np.stack([sums[e.identity, seed][v] for seed in seeds]) for v in sums[e.identity, seeds[0]]}
            for e in entries
        },
    )


def _score(folder: RunFolder, found: Pairs) -> tuple[dict, dict]:
    """A finished run's row, and the moments of each annotated video."""
    run = load_run(folder.path)
    sums = {video: moments(truth, predicted) for video, (truth, predicted) in found.items()}
    history = pd.read_csv(folder.metrics)
    row = {
        **score_pairs(found, list(run.model.targets))["ccc"],
        "videos": len(sums),
        "parameters": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "epochs": len(history),
        "best_epoch": run.best["epoch"],
        "seconds_per_epoch": float(history["seconds"].median()),
        "run": str(folder.path),
    }
    return row, sums


def check_folder(out: Path, data: Fingerprint) -> None:
    """Make the folder, or see that what is in it comes from these features and labels."""
    file = out / DATA
    if file.exists():
        if changed := changes(file, data):
            raise AffuseError(
                f"The runs in {out} were made from other data: {changed}. Choose another folder for --out, or bring "
                "the data back."
            )
        return
    if taken(out):
        raise UsageError(f"{out} is not empty and holds no such runs. Choose another folder for --out.")
    make_folder(out)
    keep(file, data)
