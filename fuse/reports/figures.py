"""What a person looks at after training or predicting: the learning curve, predictions over time, the model
card.

Figures are drawn on their own canvas, so nothing of pyplot's global state is touched and no display is
needed.
"""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import numpy as np
from affuse.features.record import Provenance
from affuse.fuse.data.corpus import Corpus
from affuse.fuse.models.model import FusionModel
from affuse.fuse.training.checkpoint import write_bytes
from affuse.fuse.training.settings import TrainSettings

from affuse.version import VERSION

COLOURS = {"valence": "#1b6ca8", "arousal": "#c8553d"}


def learning_curve(history: list[dict], path: Path) -> None:
    """Training loss and validation CCC of each target over epochs; the best epoch is marked."""
    figure, (loss, agreement) = new_figure(2, 6.0)
    epochs = [row["epoch"] for row in history]
    loss.plot(epochs, [row["loss"] for row in history], color="black")
    loss.set_ylabel("training loss\n(1 − CCC)")
    for i, name in enumerate(key for key in history[0] if key.startswith("ccc_")):
        target = name.removeprefix("ccc_")
        style = {"color": "black", "linewidth": 2} if target == "mean" else {"color": colour(target, i)}
        agreement.plot(epochs, [row[name] for row in history], label=target, **style)
    best = max((row for row in history if row["best"]), key=lambda row: row["epoch"])
    agreement.plot(best["epoch"], best["ccc_mean"], "o", color="black", label=f"best: {best['ccc_mean']:.3f}")
    agreement.set(xlabel="epoch", ylabel="validation CCC")
    agreement.legend(loc="best")
    save_figure(figure, path)


def traces(
    path: Path,
    title: str,
    time: np.ndarray,
    targets: list[str],
    prediction: np.ndarray,
    present: np.ndarray,
    truth: np.ndarray | None = None,
) -> None:
    """Each target over a video's time (T,): prediction (T, targets), truth where it is known (NaN elsewhere).

    Frames without any modality (present (T,) False) are shaded.
    """
    figure, axes = new_figure(len(targets), 1.2 + 2.2 * len(targets))
    for i, (axis, target) in enumerate(zip(axes, targets, strict=True)):
        axis.axhline(0, color="0.8", linewidth=0.8)
        if truth is not None:
            axis.plot(time, truth[:, i], color="0.45", label="annotated")
        axis.plot(time, prediction[:, i], color=colour(target, i), label="predicted")
        if not present.all():
            axis.fill_between(time, -1, 1, where=~present, color="0.9", step="mid", label="no features")
        axis.set(ylabel=f"{target} (−1 to 1)", ylim=(-1.05, 1.05))
        axis.legend(loc="upper right", ncols=3, fontsize="small")
    axes[0].set_title(title)
    axes[-1].set_xlabel("time (s)")
    save_figure(figure, path)


def new_figure(rows: int, height: float):
    """A figure and its axes, one below the other on one x axis; height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


def colour(target: str, i: int) -> str:
    return COLOURS.get(target, f"C{i}")


def save_figure(figure, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    write_bytes(path, data.getvalue())


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def model_card(
    settings: TrainSettings,
    model: FusionModel,
    provenance: Provenance,
    best: dict,
    result: dict,
    training: Corpus,
    unlabelled: int,
) -> str:
    """The run in Markdown: what it predicts, from what, how well, and where it should not be trusted."""
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    untrained = (
        f"**Untrained backbones: {', '.join(provenance.untrained)}.** Their features are a fixed random "
        "projection of the input; these numbers say nothing about the method.\n\n"
    )
    scores = [
        [target, *(f"{result[score][target]:.3f}" for score in _SCORES)]
        for target in (*training.targets, "mean")
    ]
    backbones = [
        [
            part,
            b.name,
            b.source,
            b.sha256[:12] or "–",
            "yes" if b.trained else "**no**",
            b.licence or "unknown",
        ]
        for part, b in provenance.backbones.items()
    ]
    views = (
        f"\nEach training window saw one of {1 + len(training.views)} views of its faces (centre, "
        f"{', '.join(training.views)}), drawn anew\nin every epoch; validation saw the centre."
    )
    return _CARD.format(
        settings=settings,
        targets=" and ".join(training.targets),
        today=date.today().isoformat(),
        version=VERSION,
        parameters=parameters,
        modalities=", ".join(settings.modalities),
        untrained=untrained if provenance.untrained else "",
        best=best,
        result=result,
        scores=markdown(["target", "CCC", "mean CCC per video", "Pearson r", "RMSE"], scores),
        videos=len(training.videos),
        frames=int(training.annotated.sum()),
        views=views if training.views else "",
        left_out=len(training.left_out) + len(result["left_out"]),
        unlabelled=unlabelled,
        hash=provenance.settings_hash,
        backbones=markdown(["part", "backbone", "source", "sha256", "trained", "licence"], backbones),
    )


_CARD = """# {settings.model} ({settings.variant}): {targets} per frame

Trained on {today} with affuse {version}: {parameters:,} parameters, modalities {modalities}, window
{settings.window} frames, preset `{settings.preset}`, seed {settings.seed}. All settings are in
`config.yaml`.

{untrained}## Agreement on the validation videos

Best of at most {settings.epochs} epochs: epoch {best[epoch]}. It was chosen by these same videos, so
the numbers flatter a little. CCC is over the concatenation of all {result[frames]:,} annotated frames,
from {result[videos]} videos.

{scores}

## Data

Trained on {videos} videos with {frames:,} annotated frames. {left_out} labelled videos had no features
and were left out; {unlabelled} videos of the store had no label.{views}

## Features

Extraction settings `{hash}`.
The model takes features of exactly this kind.

{backbones}

## Limits

Valence and arousal here are what raters saw in the training videos, not what a person felt. The model
knows the people, languages and recording conditions of its training data; on others its error is
unknown until measured. It is not fit for decisions about a person. A frame without any modality gets a
value interpolated from its neighbours, and `valid` 0. Some backbones are licensed for research only:
see the table above.
"""


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_SCORES = ("ccc", "ccc_per_video", "pearson", "rmse")


def score_table(result: dict) -> str:
    """What `evaluate` found, for a terminal: one row per target, then the videos one by one."""
    targets = list(result["ccc"])
    lines = [
        f"{result['partition']}: {result['videos']} videos, {result['frames']} annotated frames",
        f"{'':10}{'CCC':>9}{'95 % interval':>19}{'CCC/video':>11}{'Pearson r':>11}{'RMSE':>9}{'chance':>9}",
    ]
    for target in targets:
        ccc, per_video, pearson, rmse = (result[key][target] for key in _SCORES)
        low_high = result.get("interval", {}).get("ccc", {}).get(target)
        interval = "{:.4f} to {:.4f}".format(*low_high) if low_high else "–"
        chance = result.get("chance", {}).get(target)
        lines.append(
            f"{target:10}{ccc:9.4f}{interval:>19}{per_video:11.4f}{pearson:11.4f}{rmse:9.4f}"
            + (f"{chance['high']:9.4f}" if chance else f"{'–':>9}")
        )
    if result.get("chance"):
        lines.append("chance: 95 of 100 predictions swapped between videos score less")
    for name, seconds in result.get("adjustment", {}).items():
        if any(seconds.values()):
            lines.append(f"{name}: " + ", ".join(f"{target} {s:g} s" for target, s in seconds.items()))
    lines += ["", "CCC of each video" + "".join(f"{target:>10}" for target in targets) + f"{'frames':>10}"]
    for name, video in result["per_video"].items():
        lines.append(f"{name:17}" + "".join(f"{video[t]:10.4f}" for t in targets) + f"{video['frames']:10d}")
    lines += [f"left out: {name}: {why}" for name, why in result["left_out"].items()]
    return "\n".join(lines)


def model_table(rows: list[dict]) -> str:
    """The family as `fuse.describe` gives it, for a terminal."""
    head = ("model", "joint", "l", "gates", "encoder", "modalities", "parameters", "paper")
    table = [head]
    for row in rows:
        variants = row["variants"]
        recursions = dict.fromkeys(str(row["recursions"].get(v, "–")) for v in variants)
        sizes = dict.fromkeys(f"{row['parameters'][v] / 1e6:.2f} M" for v in variants)
        plain = (row["name"], row["joint"], "/".join(recursions), row["gates"], row["encoder"])
        table.append((*plain, "+".join(m[0] for m in row["modalities"]), "/".join(sizes), row["paper"]))
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    note = "l: recursions. a/b: released/paper. Parameters without backbones, at v 512, a 128, t 768."
    return "\n".join([*lines, "", note])
