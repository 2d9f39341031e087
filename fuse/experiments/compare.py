"""Models side by side: trained under one protocol, scored on the same frames, their differences with intervals.

compare(store, labels, out, "rjcma,concat,unimodal@visual", seeds=[0, 1, 2], settings=train_settings(...))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from affuse.features import FeatureStore
from affuse.fuse.experiments.trials import Trials, make_entries, run_trials
from affuse.fuse.reports import tables as comparison_report
from affuse.fuse.reports.figures import write_text
from affuse.fuse.scoring.metrics import Difference
from affuse.fuse.training.checkpoint import write_bytes
from affuse.fuse.training.settings import TrainSettings

from affuse.config import nearest
from affuse.errors import UsageError


@dataclass(frozen=True)
class Comparison:
    """table: one row per model, as `Trials.summary` gives it. scores: one row per model and seed. differences: one
    row per other model and target, see `differences`. facts: all of it, JSON-able. text: the tables for a person."""

    table: pd.DataFrame
    scores: pd.DataFrame
    differences: pd.DataFrame
    facts: dict
    text: str


def compare(
    store: Path | FeatureStore,
    labels: Path,
    out: Path,
    models: str | Iterable[str] | Mapping[str, dict],
    seeds: Iterable[int] = (0,),
    settings: TrainSettings | None = None,
    reference: str | None = None,
    announce: Callable[[str], None] = lambda text: None,
    on_epoch: Callable[[dict], None] | None = None,
) -> Comparison:
    """Train every model with every seed, and set them beside one another in `out`.

    models     names (`affuse.fuse.experiments.trials` has the syntax), or {any name: the settings in which it differs}
    settings   the protocol that all share; see `make_entries` for their modalities
    reference  the model that the others are compared with; None is the one with the best mean CCC
    announce   is told what begins and what is done; on_epoch gets the rows of `fuse.train`

    Writes table.csv, table.md, scores.csv, differences.csv, results.json, learning-curves.png and runs/. Called again
    it trains only what is missing. Raises UsageError before any training for models that cannot be, and as
    `run_trials` does.
    """
    store, out = store if isinstance(store, FeatureStore) else FeatureStore(store), Path(out)
    entries = make_entries(models, settings or TrainSettings(), store.widths)
    names = [entry.name for entry in entries]
    if reference is not None and reference not in names:
        raise UsageError(f"Reference {reference!r} is not among the models{nearest(reference, names)}")
    trials = run_trials(store, Path(labels), out, entries, list(seeds), announce, on_epoch)
    table = trials.summary()
    reference = reference or str(table["mean"].idxmax())
    against = differences(trials, reference)
    facts = {
        "reference": reference,
        "seeds": trials.seeds,
        "targets": trials.targets,
        "environment": comparison_report.environment(entries[0].settings.device),
        "protocol": comparison_report.protocol(entries),
        "models": records(table.reset_index()),
        "scores": records(trials.scores),
        "differences": records(against),
    }
    write_csv(out / "table.csv", table.reset_index())
    write_csv(out / "scores.csv", trials.scores)
    write_csv(out / "differences.csv", against)
    write_text(out / "table.md", comparison_report.comparison_card(table, against, facts))
    comparison_report.learning_curves(trials.histories, names, out / "learning-curves.png")
    write_text(out / "results.json", json.dumps(facts, indent=2) + "\n")
    text = comparison_report.comparison_text(table, against, facts)
    return Comparison(table, trials.scores, against, facts, text)


def differences(trials: Trials, reference: str) -> pd.DataFrame:
    """CCC of the reference less that of every other model, one row per model and target (the mean last).

    Columns: model, target, videos, difference, low and high (95 %), above_zero: the share of resamples in which the
    reference is ahead. Only videos count for which both models have a prediction.
    """
    rows = []
    for name in trials.sums:
        if name != reference:
            found, videos = trials.difference(reference, name)
            rows += difference_rows({"model": name}, found, trials.targets, videos)
    columns = ["model", "target", "videos", "difference", "low", "high", "above_zero"]
    return pd.DataFrame(rows, columns=columns)


def difference_rows(head: dict, found: Difference, targets: list[str], videos: int) -> list[dict]:
    return [
        {
            **head,
            "target": target,
            "videos": videos,
            "difference": float(found.value[i]),
            "low": float(found.low[i]),
            "high": float(found.high[i]),
            "above_zero": float(found.above_zero[i]),
        }
        for i, target in enumerate([*targets, "mean"])
    ]


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """A table in full precision, without its index."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def records(table: pd.DataFrame) -> list[dict]:
    """Rows as plain Python values, NaN as None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
