"""Models side by side: trained under one protocol, scored on the same frames, their differences with intervals.

compare(store, labels, out, "rjcma,concat,unimodal@visual", seeds=[0, 1, 2], settings=train_settings(...))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import torch

from affuse.config import nearest
from affuse.device import pick_device
from affuse.errors import UsageError
from affuse.files import as_path, write_text
from affuse.fuse.data.corpus import Features, as_store
from affuse.fuse.experiments.trials import Entry, Trials, make_entries, run_trials
from affuse.fuse.models.registry import find
from affuse.fuse.reports import tables
from affuse.fuse.reports.figures import comparison_figure, save_figure
from affuse.fuse.scoring.metrics import OF_DIFFERENCES
from affuse.fuse.training.checkpoint import FREE_TO_CHANGE
from affuse.fuse.training.settings import TrainSettings, as_settings, train_settings
from affuse.version import VERSION

SHARED = (  # settings of the schedule that a table's reader wants to know
    "preset", "window", "hop", "batch", "epochs", "learning_rate", "weight_decay", "warmup", "stop_patience",
)  # fmt: skip
ELSEWHERE = {*FREE_TO_CHANGE, "model", "variant", "seed"}  # in the rows' names, beside the table, or without effect


@dataclass(frozen=True)
class Comparison:
    """table: one row per model, as `Trials.summary` gives it. scores: one row per model and seed. differences: one
    row per other model and target, as `Trials.differences` gives it. facts: all of it, JSON-able. text: the tables
    for a person."""

    table: pd.DataFrame
    scores: pd.DataFrame
    differences: pd.DataFrame
    facts: dict
    text: str


def compare(
    store: Features,
    labels: Path | str,
    out: Path | str,
    models: str | Iterable[str] | Mapping[str, dict],
    seeds: Iterable[int] = (0,),
    settings: TrainSettings | None = None,
    reference: str | None = None,
    announce: Callable[[str], None] = lambda text: None,
    on_epoch: Callable[[dict], None] | None = None,
    jobs: int | None = 1,
) -> Comparison:
    """Train every model with every seed, and set them beside one another in `out`.

    models     names (`affuse.fuse.experiments.trials` has the syntax), or {any name: the settings in which it differs},
               where a preset brings all of its own
    settings   the protocol that all share; see `make_entries` for their modalities
    reference  the model that the others are compared with; None is the one with the best mean CCC
    announce   is told what begins and what is done; on_epoch gets the rows of `fuse.train`
    jobs       how many are trained at the same time, in processes of their own, on a CPU, one thread each; None: as
               many as there are cores. A script that asks for more than one keeps what it does below
               `if __name__ == "__main__":`, and a model that it registers itself is not known there: name its file

    Writes table.csv, table.md, scores.csv, differences.csv, results.json, comparison.png and runs/. Called again
    it trains only what is missing. Raises UsageError before any training for models that cannot be, and as
    `run_trials` does.
    """
    store, out = as_store(store), as_path("a folder for the comparison", out)
    entries = make_entries(models, as_settings(settings), store.widths)
    names = [entry.name for entry in entries]
    if reference is not None and reference not in names:
        raise UsageError(f"Reference {reference!r} is not among the models{nearest(reference, names)}")
    trials = run_trials(store, labels, out, entries, list(seeds), announce, on_epoch, jobs)
    table = trials.summary()
    named, reference = reference is not None, reference or str(table["mean"].idxmax())
    against = trials.differences(reference, [name for name in names if name != reference])
    facts = {
        **surroundings(trials, entries, reference),
        "reference_named": named,
        "untrained": store.provenance.untrained,
        "baselines": [entry.name for entry in entries if find(entry.settings.model).fit],
        "models": tables.records(table.reset_index()),
        "scores": tables.records(trials.scores),
        "differences": tables.records(against),
    }
    tables.write_csv(out / "table.csv", table.reset_index())
    tables.write_csv(out / "scores.csv", trials.scores)
    tables.write_csv(out / "differences.csv", against)
    write_text(out / "table.md", tables.comparison_card(table, against, facts))
    save_figure(comparison_figure(table, against, reference, trials.targets), out / "comparison.png")
    tables.write_json(out / "results.json", facts)
    return Comparison(table, trials.scores, against, facts, tables.comparison_text(table, against, facts))


def surroundings(trials: Trials, entries: list[Entry], reference: str) -> dict:
    """What stands around every table, JSON-able: of the settings that all entries share those of `SHARED` and those
    that are not the preset's, date, versions and hardware."""
    settings = [entry.settings.model_dump(exclude=ELSEWHERE) for entry in entries]
    usual = train_settings(preset=settings[0]["preset"]).model_dump()
    told = dict.fromkeys([*SHARED, *(key for key, value in settings[0].items() if value != usual[key])])
    device = pick_device(entries[0].settings.device)
    cores = f"{os.cpu_count()} CPU cores"
    return {
        "reference": reference,
        "seeds": trials.seeds,
        "targets": trials.targets,
        "environment": {
            "date": date.today().isoformat(),
            "affuse": VERSION,
            "torch": torch.__version__,
            "hardware": cores if device.type == "cpu" else torch.cuda.get_device_name(device),
        },
        "protocol": {k: settings[0][k] for k in told if all(s[k] == settings[0][k] for s in settings)},
        "interval_method": OF_DIFFERENCES,
    }
