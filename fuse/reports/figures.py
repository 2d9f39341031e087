"""Figures: learning curves, predictions over time, ablations, attention made visible. From plain values alone.

Every figure is drawn on its own canvas, so nothing of pyplot's global state is touched and no display is needed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from affuse.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STROKES = ("-", "--", ":", "-.")
COLOURS = {"valence": "#1b6ca8", "arousal": "#c8553d"}


def learning_curve(history: list[dict], model: str) -> Figure:
    """Training loss and validation CCC of each target over epochs; the best is marked, its CCC in the title."""
    figure, (loss, agreement) = new_figure(2, 6.0)
    epochs = [row["epoch"] for row in history]
    loss.plot(epochs, [row["loss"] for row in history], color="black")
    loss.set_ylabel("training loss")
    for i, name in enumerate(key for key in history[0] if key.startswith("ccc_")):
        target = name.removeprefix("ccc_")
        style = {"color": "black", "linewidth": 2} if target == "mean" else {"color": colour(target, i)}
        agreement.plot(epochs, [row[name] for row in history], label=target, **style)
    best = max((row for row in history if row["best"]), key=lambda row: row["epoch"])
    agreement.plot(best["epoch"], best["ccc_mean"], "o", color="black", label=f"best epoch, {best['epoch']}")
    agreement.set(xlabel="epoch", ylabel="validation CCC")
    agreement.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    scores = {key.removeprefix("ccc_"): value for key, value in best.items() if key.startswith("ccc_")}
    loss.set_title(headline(model, scores), parse_math=False)
    legend_below(figure, [agreement])
    return figure


def headline(what: str, scores: Mapping[str, float]) -> str:
    """ "rjcma: CCC valence 0.512, arousal 0.430"; without scores, what it is of."""
    told = ", ".join(f"{target} {score:.3f}" for target, score in scores.items())
    return f"{what}: CCC {told}" if told else what


def legend_below(figure: Figure, axes: Iterable[Any]) -> None:
    """Everything drawn on the axes that has a name, once, outside of them."""
    drawn = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn, loc="outside lower center", ncols=len(drawn), fontsize="small")


def traces(
    title: str,
    targets: Sequence[str],
    time: np.ndarray,
    values: np.ndarray,
    valid: np.ndarray,
    truth: np.ndarray | None = None,
    face: np.ndarray | None = None,
    reach: np.ndarray | None = None,
) -> Figure:
    """Predicted values (T, targets) over time (T,), a band of reach (T, targets) to both sides, and the truth
    (T, targets) where it is known (NaN elsewhere).

    Frames that are not valid, without any modality, are shaded, and more lightly those without a face; both (T,) bool.
    """
    figure, axes = new_figure(len(targets), 1.4 + 2.2 * len(targets))
    for i, (axis, target) in enumerate(zip(axes, targets, strict=True)):
        if truth is not None:
            axis.plot(time, truth[:, i], color="0.45", label="annotated")
        axis.plot(time, values[:, i], color=colour(target, i), label=f"predicted {target}")
        if reach is not None:
            low, high = values[:, i] - reach[:, i], values[:, i] + reach[:, i]
            axis.fill_between(
                time, low, high, color=colour(target, i), alpha=0.2, linewidth=0, label=f"9 of 10 {target}"
            )
        _ground(axis, time, valid, f"{target} (−1 to 1)", face)
    legend_below(figure, axes)
    axes[0].set_title(title, parse_math=False)
    axes[-1].set_xlabel("time (s)")
    return figure


def new_canvas(width: float, height: float) -> Figure:
    """A figure with nothing on it, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(rows: int, height: float):
    """A figure and its axes, one below the other on one x axis; height in inches."""
    figure = new_canvas(9, height)
    return figure, figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


def _ground(axis, time: np.ndarray, valid: np.ndarray, label: str, face: np.ndarray | None) -> None:
    """The scale of valence and arousal, its zero, and shades where there are no features, or but no face."""
    axis.axhline(0, color="0.8", linewidth=0.8, zorder=1.5)
    faceless = np.zeros(len(time), bool) if face is None else valid & ~face
    for shaded, shade, what in ((faceless, "0.94", "no face"), (~valid, "0.84", "no features")):
        if shaded.any():
            axis.fill_between(time, -1, 1, where=shaded, color=shade, step="mid", linewidth=0, zorder=0.5, label=what)
    axis.set(ylabel=label, ylim=(-1.05, 1.05))


def colour(target: str, i: int) -> str:
    return COLOURS.get(target, f"C{i}")


def save_figure(figure, path: Path) -> None:
    """Write a figure as PNG; a letter that the font lacks is a box in it, without a word."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(data, format="png", dpi=110)
    write_bytes(path, data.getvalue())


def explanation(title: str, table: pd.DataFrame, targets: Sequence[str]) -> Figure:
    """What `explained` gives, over one time axis: the prediction, then for each modality its update norms, then its
    gate weights."""
    updated, gated = (
        list(dict.fromkeys(column.split("_")[1] for column in table if column.startswith(kind)))
        for kind in ("update_", "gate_")
    )
    rows = len(updated) + len(gated)
    figure, axes = new_figure(1 + rows, 2.2 + 1.5 * rows)
    time, first, rest = table["time"], axes[0], iter(axes[1:])
    for i, target in enumerate(targets):
        first.plot(time, table[target], color=colour(target, i), label=target)
    face = table["face"] != 0 if "face" in table else None
    _ground(first, time, table["valid"] != 0, "prediction\n(−1 to 1)", face)
    first.set_title(title, parse_math=False)
    for m, axis in zip(updated, rest, strict=False):
        for i, name in enumerate(column for column in table if column.startswith(f"update_{m}_")):
            shade = str(0.55 * (i % 2))
            axis.plot(time, table[name], label=f"pass {i + 1}", color=shade, linestyle=STROKES[i % len(STROKES)])
        axis.set(ylabel=f"{m}: norm\nof the update", ylim=(0, None))
    for m, axis in zip(gated, rest, strict=True):
        names = [c for c in table if c.startswith(f"gate_{m}_") and c.count("_") == 2]
        labels = [name.removeprefix(f"gate_{m}_") for name in names]
        shades = [str(shade) for shade in np.linspace(0.85, 0.35, len(names))]
        axis.stackplot(time, table[names].to_numpy().T, labels=labels, colors=shades)
        axis.set(ylabel=f"{m}:\ngate weights", ylim=(0, 1))
    for axis in axes:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    axes[-1].set_xlabel("time (s)")
    return figure


def comparison_figure(table: pd.DataFrame, differences: pd.DataFrame, reference: str, targets: Sequence[str]) -> Figure:
    """What `Trials.summary` and `Trials.differences` give: a bar for the mean CCC of each model with its standard
    deviation over seeds, and dots for the targets; beside it how far it is from the reference, with the 95 % interval.
    """
    order = table.sort_values("mean")
    apart = differences[differences["target"] == "mean"].set_index("model").reindex(order.index)
    rows = np.arange(len(order))
    figure = new_canvas(10, 1.6 + 0.34 * len(order))
    bars, gaps = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    bars.barh(rows, order["mean"], 0.62, xerr=order["mean_sd"], color="0.82", capsize=3, label="mean")
    for i, target in enumerate(targets):
        bars.plot(order[target], rows, "o", markersize=5, color=colour(target, i), label=target)
    reach = [-apart["difference"] + apart["high"], apart["difference"] - apart["low"]]  # the sign is turned
    gaps.errorbar(-apart["difference"], rows, xerr=reach, fmt="o", color="black", markersize=4, capsize=3)
    for axis in (bars, gaps):
        axis.axvline(0, color="0.6", linewidth=0.8, zorder=0.5)
    bars.set_yticks(rows, [str(name) for name in order.index])
    bars.set(xlabel="validation CCC, ± over seeds", xlim=(min(0.0, bars.get_xlim()[0]), None))
    gaps.set(xlabel=f"mean CCC less that of {reference}, 95 % interval")
    legend_below(figure, [bars])
    return figure


def ablation_figure(title: str, table: pd.DataFrame, targets: list[str], ordered: bool) -> Figure:
    """CCC of each level, with the standard deviation over seeds; levels that are a scale are joined by lines."""
    figure, (axis,) = new_figure(1, 4.0)
    offsets = np.linspace(-0.08, 0.08, len(targets) + 1)
    for i, (target, offset) in enumerate(zip([*targets, "mean"], offsets, strict=True)):
        style = {"color": "black" if target == "mean" else colour(target, i), "linestyle": "-" if ordered else ""}
        spread = table[f"{target}_sd"].fillna(0)
        axis.errorbar(np.arange(len(table)) + offset, table[target], spread, fmt="o", capsize=3, label=target, **style)
    axis.set_xticks(range(len(table)), [str(level) for level in table.index])
    axis.set(title=title, xlabel=table.index.name, ylabel="validation CCC")
    legend_below(figure, [axis])
    return figure
