"""Comparisons and ablations as a person reads them: tables in Markdown and for a terminal, and their figures."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from affuse.fuse.experiments.trials import Entry
from affuse.fuse.reports.figures import colour, markdown, new_figure, save_figure
from affuse.fuse.scoring.metrics import RESAMPLES

from affuse.device import pick_device
from affuse.version import VERSION

SHARED = (
    "preset",
    "window",
    "hop",
    "batch",
    "epochs",
    "learning_rate",
    "weight_decay",
    "warmup",
    "stop_patience",
)


def environment(device: str) -> dict[str, str]:
    """Date, versions and hardware of the trainings that end now."""
    target = pick_device(device)
    hardware = f"{os.cpu_count()} CPU cores" if target.type == "cpu" else torch.cuda.get_device_name(target)
    return {
        "date": date.today().isoformat(),
        "affuse": VERSION,
        "torch": torch.__version__,
        "hardware": hardware,
    }


def protocol(entries: list[Entry]) -> dict:
    """The settings of the schedule that all entries share."""
    settings = [entry.settings.model_dump(include=set(SHARED)) for entry in entries]
    return {key: settings[0][key] for key in SHARED if all(s[key] == settings[0][key] for s in settings)}


def comparison_card(table: pd.DataFrame, differences: pd.DataFrame, facts: dict) -> str:
    """table.md: what was compared and how, the models, and the differences from the reference."""
    head, rows = model_cells(table)
    parts = ["# Models compared", _how(facts), markdown(head, rows)]
    if len(differences):
        positive = f"Share above 0: resamples in which {facts['reference']} is ahead."
        parts += [f"## {facts['reference']} less each other model", f"{_WHAT_DIFFERS} {positive}"]
        parts.append(markdown(*difference_cells(differences)))
    return "\n\n".join(parts) + "\n"


def comparison_text(table: pd.DataFrame, differences: pd.DataFrame, facts: dict) -> str:
    """The same for a terminal, differences of the mean only."""
    lines = aligned(*model_cells(table))
    if len(differences):
        mean = differences[differences["target"] == "mean"]
        lines += [
            "",
            f"CCC of {facts['reference']} less that of each other model (95 % interval over videos):",
        ]
        lines += aligned(*difference_cells(mean))
    return "\n".join(lines)


def ablation_card(title: str, question: str, table: pd.DataFrame, facts: dict) -> str:
    """<ablation>.md: the question, and one row per level."""
    head, rows = ablation_cells(table)
    lost = f"Lost: CCC of {facts['reference']} as it is less that of the row. {_WHAT_DIFFERS}"
    return "\n\n".join([f"# {title}", question, _how(facts), markdown(head, rows), lost]) + "\n"


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


def aligned(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table for a terminal: names to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *rows]
    ]


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


_WHAT_DIFFERS = (
    f"Intervals: paired bootstrap over videos, {RESAMPLES} resamples, 95 % percentile; a model's CCC in a resample is "
    "the mean over its seeds. They say what other videos would change, not what other seeds would; over fewer than "
    "some 20 videos they are too narrow."
)


def learning_curves(histories: dict[tuple[str, int], pd.DataFrame], names: list[str], path: Path) -> None:
    """Training loss and mean validation CCC of every model over epochs, each the mean over the seeds that got there."""
    from matplotlib import colormaps

    figure, axes = new_figure(2, 8.0)
    colours, strokes = colormaps["tab10"].colors, ("-", "--", ":", "-.")
    for i, name in enumerate(names):
        runs = pd.concat([history for (model, _), history in histories.items() if model == name])
        curve = runs.groupby("epoch")[["loss", "ccc_mean"]].mean()
        style = {"color": colours[i % len(colours)], "linestyle": strokes[i // len(colours) % len(strokes)]}
        style["marker"] = "." if len(curve) == 1 else ""
        for axis, column in zip(axes, curve, strict=True):
            axis.plot(curve.index, curve[column], label=name, linewidth=1.4, **style)
    axes[0].set_ylabel("training loss\n(1 − CCC)")
    axes[1].set(xlabel="epoch", ylabel="validation CCC,\nmean of the targets")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    save_figure(figure, path)


def ablation_figure(title: str, table: pd.DataFrame, targets: list[str], ordered: bool, path: Path) -> None:
    """CCC of each level, with the standard deviation over seeds; levels that are a scale are joined by lines."""
    figure, (axis,) = new_figure(1, 4.0)
    offsets = np.linspace(-0.08, 0.08, len(targets) + 1)
    for i, (target, offset) in enumerate(zip([*targets, "mean"], offsets, strict=True)):
        style = {
            "color": "black" if target == "mean" else colour(target, i),
            "linestyle": "-" if ordered else "",
        }
        spread = table[f"{target}_sd"].fillna(0)
        axis.errorbar(
            np.arange(len(table)) + offset, table[target], spread, fmt="o", capsize=3, label=target, **style
        )
    axis.set_xticks(range(len(table)), [str(level) for level in table.index])
    axis.set(title=title, xlabel=table.index.name, ylabel="validation CCC")
    axis.legend(loc="best", fontsize="small")
    save_figure(figure, path)
