"""What attention and gates did to each modality over a run's videos, as shares that can be said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from affuse.errors import AffuseError
from affuse.features.store import FeatureStore
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.scoring.predict import SEEN_AS
from affuse.fuse.training.run import Run
from affuse.pipelines.report.series import rounded
from affuse.pipelines.report.sources import Reported

MOST = 50  # videos looked at, evenly chosen: shares of more are the same, and a page is not waited for


def attention_of(source: Reported) -> dict | None:
    """None for a model without attention, and for what is no run; else {"reason": why nothing is told, "videos", "of":
    how many were looked at, of how many; "models"; "steps": what features are called as they came, after the first
    recursion …; "modalities": for each

      name       face, sound or words
      frames     how many had it
      changed    by how much each recursion changed its features, in parts of their size before attention
      taken      of a model with gates, the weight of each of the steps in what it used; they sum to 1
      said       both in words}
    """
    run = source.run
    if run is None or not run.model.blocks:
        return None
    store = source.stores[0] if source.stores else None
    videos = [] if store is None else [video for video in source.ids if video in store]
    told = {"reason": _why_not(run, store), "models": 1 + len(run.others), "videos": 0, "of": len(source.ids)}
    tables = [] if told["reason"] else [*_explained(run, store, videos[:: -(-len(videos) // MOST) or 1])]
    steps = step_names(run.model.options.recursions)
    modalities = [_modality(m, [table for each in tables for table in each], steps) for m in run.model.modalities]
    return {**told, "videos": len(tables), "steps": steps, "modalities": [each for each in modalities if each]}


def _why_not(run: Run, store: FeatureStore | None) -> str:
    if store is None:
        return "Give the feature store, with --features, to see here what attention did in these videos."
    if differences := run.differences(store.provenance):
        return f"Not told: the features in {store.path.name} were not made as those trained on ({differences})."
    return ""


def _explained(run: Run, store: FeatureStore, videos: list[str]) -> Iterator[list[pd.DataFrame]]:
    """Of every video that can be read what `Run.explained` gives, of each of the run's models."""
    here = run.on("auto")
    how = {"device": here.device, "fps": run.fps}
    for video in videos:
        try:
            corpus = load_corpus(store, [video], run.settings.modalities, run.model.targets, None, **how)
        except AffuseError:  # it has failed elsewhere on the page
            continue
        yield [model.explained(corpus) for model in (replace(here, others=()), *here.others)]


def step_names(recursions: int) -> list[str]:
    """What features are called before attention and after each of its recursions."""
    if recursions == 1:
        return ["before attention", "after attention"]
    between = ["after the first recursion", *(f"after recursion {i}" for i in range(2, recursions))]
    return ["before attention", *between, "after the last recursion"]


def _modality(m: str, tables: list[pd.DataFrame], steps: list[str]) -> dict | None:
    """One modality over all frames that have it; None where none has."""
    there = [table[table[f"norm_{m}"].notna()] for table in tables]
    table = pd.concat(there) if there else pd.DataFrame()
    if table.empty:
        return None
    size = table[f"norm_{m}"].mean()
    changed = [table[f"update_{m}_{i}"].mean() / size for i in range(1, len(steps))]
    weights = weights_of(table, m)
    taken = [float(weights[f"X{i}"].mean()) if f"X{i}" in weights else 0.0 for i in range(len(steps))]
    name = SEEN_AS[m]
    return {
        "name": name,
        "frames": len(table),
        "changed": [rounded(share) for share in changed],
        "taken": [rounded(share) for share in taken] if weights else [],
        "said": " ".join([*_taken_in_words(name, taken, steps), _changed_in_words(changed, steps)]),
    }


def weights_of(table: pd.DataFrame, m: str) -> dict[str, pd.Series]:
    """{X0 …: the weight of that step in what a modality's gates let through, frame by frame}; of gates that choose
    among gates, through both. Empty without gates."""
    before, found = f"gate_{m}_", {}
    for column in table.columns[table.columns.str.startswith(before)]:
        gate, _, step = column.removeprefix(before).rpartition("_")
        if step.startswith("X"):
            weight = table[column] * (table[before + gate] if gate else 1)
            found[step] = found[step] + weight if step in found else weight
    return found


def _taken_in_words(name: str, taken: list[float], steps: list[str]) -> Iterator[str]:
    if any(taken):
        (share, step), *rest = sorted(zip(taken, steps, strict=True), reverse=True)
        more = [f", {percent(share)} those {step}" for share, step in rest if share]
        yield f"For the {name}, {percent(share)} of what is used is the features {step}{''.join(more)}."


def _changed_in_words(changed: list[float], steps: list[str]) -> str:
    first, *rest = [step.removeprefix("after ") for step in steps[1:]]
    more = [f", {step} by {percent(share)}" for step, share in zip(rest, changed[1:], strict=True)]
    return f"{first.capitalize()} changes the features by {percent(changed[0])} of their size{''.join(more)}."


def percent(share: float) -> str:
    """ "72 %", which is not to be parted at a line's end, and of what rounds to nothing "less than 1 %"."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%" if share >= 0.005 or share == 0 else "less than 1\N{NO-BREAK SPACE}%"
