"""Tables as a person reads them, in Markdown and for a terminal, and as programs do. From plain values alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.errors import counted
from affuse.files import write_text

CHOSEN = {
    "scored": "Every fold's epoch was chosen on the videos it is scored on, so the numbers flatter a little.",
    "inner": "Every fold's epoch was chosen on the videos of the next fold, which did not train it.",
}
SCORES = ("ccc", "ccc_per_video", "pearson", "rmse")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def aligned(head: list[str], rows: list[list[str]], justify: Callable[[str, int], str] = str.rjust) -> list[str]:
    """Lines of a table for a terminal: names to the left, and what follows as `justify` has it."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            (justify if i else str.ljust)(cell, width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *rows]
    ]


def as_csv(table: pd.DataFrame, float_format: str | None = None) -> str:
    """A table without its index, in full precision unless a format is given."""
    return table.to_csv(index=False, float_format=float_format, lineterminator="\n")


def write_csv(path: Path, table: pd.DataFrame, float_format: str | None = None) -> None:
    """Write what `as_csv` gives."""
    write_text(path, as_csv(table, float_format))


def write_json(path: Path, facts: dict) -> None:
    write_text(path, json.dumps(facts, indent=2) + "\n")


def records(table: pd.DataFrame) -> list[dict]:
    """Rows as plain Python values, NaN as None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


# ---- one run, one cross-validation, the family


def score_table(result: dict) -> str:
    """What `evaluate` found, for a terminal: one row per target, then the videos one by one."""
    targets = list(result["ccc"])
    lines = [
        f"{result['partition']}: {counted(result['videos'], 'video')}, {result['frames']} annotated frames",
        f"{'':10}{'CCC':>9}{'95 % interval':>19}{'CCC/video':>11}{'Pearson r':>11}{'RMSE':>9}{'chance':>9}",
    ]
    for target in targets:
        ccc, per_video, pearson, rmse = (result[key][target] for key in SCORES)
        low_high = result.get("interval", {}).get("ccc", {}).get(target)
        interval = "{:.4f} to {:.4f}".format(*low_high) if low_high else "–"
        chance = result.get("chance", {}).get(target)
        lines.append(
            f"{target:10}{ccc:9.4f}{interval:>19}{per_video:11.4f}{pearson:11.4f}{rmse:9.4f}"
            + (f"{chance['high']:9.4f}" if chance else f"{'–':>9}")
        )
    if result.get("interval"):
        lines.append(f"interval: {result['interval_method']}")
    if "within" in result:
        shares = ", ".join(f"{target} {share:.0%}" for target, share in result["within"].items())
        lines.append(f"truth within the {result['band']:.0%} band: {shares}")
    if result.get("chance"):
        lines.append("chance: 95 of 100 predictions swapped between videos score less")
    if result["videos"] == 1:
        lines.append("interval and chance need several videos, to draw from and to swap between")
    for name, seconds in result.get("adjustment", {}).items():
        if any(seconds.values()):
            lines.append(f"{name}: " + ", ".join(f"{target} {s:g} s" for target, s in seconds.items()))
    lines += ["", "CCC of each video" + "".join(f"{target:>10}" for target in targets) + f"{'frames':>10}"]
    for name, video in result["per_video"].items():
        lines.append(f"{name:17}" + "".join(f"{video[t]:10.4f}" for t in targets) + f"{video['frames']:10d}")
    lines += [f"left out: {name}: {why}" for name, why in result["left_out"].items()]
    return "\n".join(lines)


def fold_table(result: dict) -> str:
    """What `crossval` found, for a terminal: the scores of all folds together, then of each."""
    targets = list(result["ccc"])
    head = ["fold", "videos", "epoch", *targets]
    rows = [
        [name, str(fold["videos"]), str(fold["best_epoch"]), *(f"{fold['ccc'][t]:.4f}" for t in targets)]
        for name, fold in result["folds"].items()
    ]
    means = [np.mean([fold["ccc"][t] for fold in result["folds"].values()]) for t in targets]
    lines = [
        score_table(result),
        "",
        *aligned(head, [*rows, ["mean", "", "", *(f"{mean:.4f}" for mean in means)]]),
        CHOSEN[result["choose"]],
    ]
    if videos := result["ensemble"]["videos"]:
        lines.append(
            f"{counted(len(videos), 'other video')} predicted by all folds together ({result['ensemble']['method']})."
        )
    if "test" in result:
        lines.append("test: CCC " + ", ".join(f"{t} {v:.4f}" for t, v in result["test"]["ccc"].items()))
    return "\n".join(lines)


def model_table(rows: list[dict]) -> str:
    """The family as `fuse.describe` gives it, for a terminal."""
    cells = []
    for row in rows:
        variants = row["variants"]
        recursions = dict.fromkeys(str(row["recursions"].get(v, "–")) for v in variants)
        sizes = dict.fromkeys(f"{row['parameters'][v] / 1e6:.2f} M" for v in variants)
        plain = [row["name"], row["joint"], "/".join(recursions), row["gates"], row["encoder"]]
        cells.append([*plain, "+".join(m[0] for m in row["modalities"]), "/".join(sizes), row["paper"]])
    head = ["model", "joint", "l", "gates", "encoder", "modalities", "parameters", "paper"]
    note = "l: recursions. a/b: released/paper. Parameters without backbones, at v 512, a 128, t 768."
    return "\n".join([*aligned(head, cells, str.ljust), "", note])


# ---- comparisons and ablations


def comparison_card(table: pd.DataFrame, differences: pd.DataFrame, facts: dict) -> str:
    """table.md: what was compared and how, the models, and the differences from the reference."""
    parts = ["# Models compared", _how(facts), markdown(*model_cells(table)), *not_above(table, facts["baselines"])]
    if len(differences):
        positive = f"Share above 0: resamples in which {facts['reference']} is ahead."
        said = " ".join([what_differs(facts), positive, *flattered(facts)])
        parts += [f"## {facts['reference']} less each other model", said]
        parts.append(markdown(*difference_cells(differences)))
    return "\n\n".join(parts) + "\n"


def comparison_text(table: pd.DataFrame, differences: pd.DataFrame, facts: dict) -> str:
    """The same for a terminal, differences of the mean only."""
    lines = [*aligned(*model_cells(table)), *not_above(table, facts["baselines"])]
    if len(differences):
        mean = differences[differences["target"] == "mean"]
        title = f"CCC of {facts['reference']} less that of each other model (interval: {facts['interval_method']}):"
        lines += ["", title, *aligned(*difference_cells(mean)), *flattered(facts)]
    return "\n".join(lines)


def flattered(facts: dict) -> list[str]:
    """What is to be known of a reference that was chosen by the table that it stands in."""
    why = f"{facts['reference']} is the best of these models on these same videos, which flatters it"
    return [] if facts["reference_named"] else [f"{why}; --reference names one beforehand."]


def not_above(table: pd.DataFrame, baselines: list[str]) -> list[str]:
    """Of each of these rows that has any, the trained models whose mean CCC is not above its own, as a sentence."""
    trained, lines = table["mean"].drop(baselines), []
    for baseline in baselines:
        if below := [str(name) for name in trained.index[trained <= table.loc[baseline, "mean"]]]:
            lines.append(f"Not above {baseline}: {', '.join(below)}.")
    return lines


def ablation_card(title: str, question: str, table: pd.DataFrame, facts: dict) -> str:
    """<ablation>.md: the question, and one row per level."""
    lost = f"Lost: CCC of {facts['reference']} as it is less that of the row. {what_differs(facts)}"
    return "\n\n".join([f"# {title}", question, _how(facts), markdown(*ablation_cells(table)), lost]) + "\n"


def model_cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a summary: mean ± sd of every CCC, parameters, seconds per epoch."""
    columns = [name for name in table if f"{name}_sd" in table]
    rows = [
        [
            str(name),
            *(mean_and_spread(row[column], row[f"{column}_sd"]) for column in columns),
            f"{int(row['parameters']):,}",
            f"{row['seconds_per_epoch']:.2f}",
        ]
        for name, row in table.iterrows()
    ]
    return [str(table.index.name), *columns, "parameters", "s/epoch"], rows


def ablation_cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    head, rows = model_cells(table)
    for cells, (_, row) in zip(rows, table.iterrows(), strict=True):
        cells.append("–" if pd.isna(row["lost"]) else with_interval(row["lost"], row["low"], row["high"]))
    return [*head, "lost (mean)"], rows


def difference_cells(differences: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            row.model,
            row.target,
            with_interval(row.difference, row.low, row.high),
            "–" if pd.isna(row.above_zero) else f"{row.above_zero:.3f}",
            str(row.videos),
        ]
        for row in differences.itertuples()
    ]
    return ["model", "target", "difference [95 %]", "share above 0", "videos"], rows


def mean_and_spread(mean: float, spread: float) -> str:
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def with_interval(value: float, low: float, high: float) -> str:
    return f"{value:+.3f}" if np.isnan(low) else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _how(facts: dict) -> str:
    seeds, where = facts["seeds"], facts["environment"]
    spread = ", mean ± sample standard deviation over seeds" if len(seeds) > 1 else ""
    shared = ", ".join(f"{key} {value}" for key, value in facts["protocol"].items())
    return (
        f"CCC over the concatenation of the validation videos{spread}; "
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}. "
        "The best epoch of every run was chosen by these same videos. Parameters without backbones; seconds of the "
        f"median epoch. Shared settings: {shared}. "
        f"{where['date']}, affuse {where['affuse']}, torch {where['torch']}, {where['hardware']}."
    )


def what_differs(facts: dict) -> str:
    """How intervals are made, and what they say."""
    return (
        f"Intervals: {facts['interval_method']}, the same resamples for both models; a model's CCC in one is the mean "
        "over its seeds. They say what other videos would change, not what other seeds would."
    )
