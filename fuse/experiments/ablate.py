"""What each part of a model is worth: recursions, temporal encoder, modalities, gates, tied weights, one at a time.

Every ablation is a set of levels, and a level is the model with some settings changed. Levels that come to the same
model, in one ablation or in several, are one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from affuse.files import as_path, write_text
from affuse.fuse.data.corpus import Features, as_store
from affuse.fuse.experiments.compare import surroundings
from affuse.fuse.experiments.trials import Entry, Trials, make_entries, parse_name, run_trials
from affuse.fuse.models.registry import find, resolve_options
from affuse.fuse.models.spec import Options
from affuse.fuse.reports import tables
from affuse.fuse.reports.figures import ablation_figure, save_figure
from affuse.fuse.training.settings import TrainSettings, as_settings

RECURSIONS = range(5)
TEMPORAL = ("tcn", "bilstm")
UNIMODAL = {  # one modality alone is a model of its own, without what belongs to attention
    "model": "unimodal", "variant": "released", "recursions": None, "attention": "channel", "gates": "spec",
    "tied": False, "modality_dropout": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Ablation:
    """levels: {what a row says: the settings changed}. ordered: the levels are a scale. Without levels,
    why_not says why the model cannot be asked."""

    name: str
    title: str
    question: str
    levels: dict[str, dict]
    ordered: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Ablations:
    """tables: {ablation: one row per level}. skipped: {ablation: why}. facts: JSON-able. text: for a person."""

    tables: dict[str, pd.DataFrame]
    skipped: dict[str, str]
    facts: dict
    text: str


def plan(settings: TrainSettings, widths: dict[str, int]) -> list[Ablation]:
    """The ablations of the model in `settings`; widths are the store's."""
    options = resolve_options(**settings.model_options(widths))
    spec = find(options.name)
    none = "" if spec.recursive else f"{options.name} has no recursions"
    gated = options.gates if options.gates != "none" else "grjca"
    gateable = {} if options.recursions else {"recursions": 1}
    tieable = {} if options.recursions > 1 else {"recursions": 2}
    return [
        Ablation(
            "recursions",
            "Recursions of the attention",
            "How often should attention be repeated? 0 is none at all; gates need at least 1.",
            {
                str(l): {"recursions": l, "tied": options.tied and l > 1}
                for l in RECURSIONS
                if l or options.gates == "none"
            },
            ordered=True,
            why_not=none,
        ),
        _encoder(options, spec.encoder),
        _modalities(options, spec.modalities[0]),
        Ablation(
            "gates",
            "Gates",
            f"Should every frame choose how much attention it takes? on is the gate of {gated}.",
            {"off": {"gates": "none", **gateable}, "on": {"gates": gated, **gateable}},
            why_not=none,
        ),
        Ablation(
            "tied",
            "Weights of the recursions",
            "Should every recursion have weights of its own?",
            {"untied": {"tied": False, **tieable}, "tied": {"tied": True, **tieable}},
            why_not=none,
        ),
    ]


def _encoder(options: Options, published: str) -> Ablation:
    """A frame's own features, as wide, are the fair opposite of an encoder that sees other frames."""
    given = options.encoder
    on = given if given in TEMPORAL else published if published in TEMPORAL else "tcn"
    off = "linear" if given in TEMPORAL else given
    return Ablation(
        "encoder",
        "Temporal encoder",
        f"Does it help to see other frames before the attention? on is {on}; off is {off}, which sees none.",
        {"off": {"encoder": off}, "on": {"encoder": on}},
        why_not=f"{options.name} takes features as they are" if find(options.name).fit else "",
    )


def _modalities(options: Options, fewest: int) -> Ablation:
    there = list(options.widths)
    levels = {"all": {"modalities": there}}
    for m in there:
        left = [other for other in there if other != m]
        if left:
            levels[f"without {m}"] = {"modalities": left, **(UNIMODAL if len(left) < fewest else {})}
    note = " Where one is left, the model is unimodal." if len(there) == fewest > 1 else ""
    return Ablation(
        "modalities",
        "Modalities",
        f"What does each modality add?{note}",
        levels,
        why_not="" if len(there) > 1 else f"{options.name} has one modality only",
    )


def ablate(
    store: Features,
    labels: Path | str,
    out: Path | str,
    model: str = "rjcma",
    seeds: Iterable[int] = (0,),
    settings: TrainSettings | None = None,
    announce: Callable[[str], None] = lambda text: None,
    on_epoch: Callable[[dict], None] | None = None,
    jobs: int | None = 1,
) -> Ablations:
    """Train the model with one part changed at a time, and say what each part is worth.

    model is a name as `trials` has them; settings are shared, jobs is that of `compare`. Writes <ablation>.csv, .md and
    .png for every ablation, ablations.json and runs/ into `out`, which may hold a comparison over the same data: runs
    of the same name are shared. Called again it trains only what is missing. Raises as `compare` does.
    """
    store, out = as_store(store), as_path("a folder for the ablations", out)
    (base,) = make_entries({model: parse_name(model)}, as_settings(settings), store.widths)
    ablations = plan(base.settings, store.widths)
    skipped = {a.name: a.why_not for a in ablations if a.why_not}
    for name, why in skipped.items():
        announce(f"{name}: left out, since {why}")
    asked = [a for a in ablations if not a.why_not]
    wanted = {f"{model}, {a.name} {level}": changes for a in asked for level, changes in a.levels.items()}
    entries = make_entries({model: {}, **wanted}, base.settings, store.widths)
    trials = run_trials(store, labels, out, entries, list(seeds), announce, on_epoch, jobs)
    facts = {**surroundings(trials, [base], model), "skipped": skipped}
    found, texts = {}, []
    for ablation in asked:
        table = found[ablation.name] = _table(ablation, model, entries, trials)
        tables.write_csv(out / f"{ablation.name}.csv", table.reset_index())
        write_text(out / f"{ablation.name}.md", tables.ablation_card(ablation.title, ablation.question, table, facts))
        figure = ablation_figure(ablation.title, table, trials.targets, ablation.ordered)
        save_figure(figure, out / f"{ablation.name}.png")
        texts.append("\n".join(tables.aligned(*tables.ablation_cells(table))))
    facts["ablations"] = {name: tables.records(table.reset_index()) for name, table in found.items()}
    tables.write_json(out / "ablations.json", facts)
    return Ablations(found, skipped, facts, "\n\n".join(texts))


def _table(ablation: Ablation, model: str, entries: list[Entry], trials: Trials) -> pd.DataFrame:
    """One row per level: the summary, and what is lost in mean CCC against the model as it is (NaN for itself)."""
    identity = {entry.name: entry.identity for entry in entries}
    names = {f"{model}, {ablation.name} {level}": level for level in ablation.levels}
    others = [name for name in names if identity[name] != identity[model]]
    against = trials.differences(model, others).query("target == 'mean'").set_index("model")
    lost = against.rename(columns={"difference": "lost"})[["lost", "low", "high", "above_zero"]]
    return trials.summary().join(lost).loc[list(names)].set_index(pd.Index(names.values(), name=ablation.name))
