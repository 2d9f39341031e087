"""What attention and gates did, frame by frame: the size of every update and the gates' weights, beside the
prediction, on the video's own clock."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from affuse.features import FeatureStore
from affuse.fuse.data.corpus import Windows
from affuse.fuse.models.model import FusionModel
from affuse.fuse.reports.figures import colour, new_figure, save_figure
from affuse.fuse.scoring.evaluate import onto_frames
from affuse.fuse.scoring.predict import for_each_video
from affuse.fuse.training.checkpoint import write_bytes
from affuse.fuse.training.run import Run, load_run

from affuse.errors import UsageError


def explain(
    run: Path | Run,
    store: Path | FeatureStore,
    out: Path,
    ids: Iterable[str] | None = None,
    device: str = "auto",
) -> dict:
    """Write `<out>/<video>.csv` and a figure for every video of the store, or those in `ids`.

    Columns, one row per frame: time (seconds), the targets and valid as `predict` writes them, then for every
    modality m
      update_<m>_<i>          ‖X^i − X^{i−1}‖, what pass i of the attention changed
      gate_<m>_<candidate>    the gate's weight of X^i, or for HGRJCA of the inner gate G_i; they sum to 1
      gate_<m>_G<i>_X<j>      HGRJCA: the weight of X^j in its inner gate G_i
    each the mean over the windows that cover the frame, and empty where the video has no m at that frame.

    Gives and raises what `predict` does; UsageError also for a model that has neither attention nor gates.
    """
    run = run if isinstance(run, Run) else load_run(run)
    if not run.model.blocks:
        raise UsageError(
            f"The model of {run.path}, {run.model.options.name!r} with {run.model.options.recursions} recursions, has "
            "no joint or cross-attention whose passes and gates could be shown. `affuse fuse predict` gives its "
            "predictions."
        )

    def make(run: Run, windows: Windows, stem: Path) -> dict:
        table = explained(run, windows)
        csv, figure = stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.png")
        write_bytes(csv, table.to_csv(index=False, float_format="%.6f", lineterminator="\n").encode())
        draw(figure, windows.corpus.videos[0], table, run.model)
        return {
            "csv": str(csv),
            "figure": str(figure),
            "frames": len(table),
            "valid": int(table["valid"].sum()),
        }

    return for_each_video(run, store, out, ids, device, make)


def explained(run: Run, windows: Windows) -> pd.DataFrame:
    """The table that `explain` writes, for windows of one video."""
    corpus, precision = windows.corpus, run.settings.precision
    parts: list[dict[str, torch.Tensor]] = []
    with torch.autocast(corpus.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        for batch in windows.ordered(run.settings.batch):
            parts.append(_flat(run.model.explain(batch.inputs, mask=batch.mask)))
    joined = {name: torch.cat([part[name] for part in parts]).float() for name in parts[0]}
    prediction = onto_frames(windows, joined.pop("output"))
    table = {"time": corpus.time}
    table |= {target: prediction[:, i] for i, target in enumerate(corpus.targets)}
    table["valid"] = corpus.any_present().cpu().numpy().astype(int)
    for name, values in joined.items():
        (frames,) = windows.to_frames(values[..., None].cpu().numpy())
        present = corpus.present[name.split("_")[1]].cpu().numpy()
        table[name] = np.where(present, frames[:, 0], np.nan)
    return pd.DataFrame(table)


def _flat(explanation: dict) -> dict[str, torch.Tensor]:
    """What `FusionModel.explain` gives, as columns (windows, L); `output` keeps its targets."""
    columns = {"output": explanation["output"]}
    for m, updates in explanation["updates"].items():
        columns |= {f"update_{m}_{i}": norm for i, norm in enumerate(updates.unbind(-1), 1)}
    for m, weights in explanation["gates"].items():
        names = explanation["candidates"]
        # With one recursion GRJCA's X^{l−1} is X^0 once more: the same candidate, its weights together.
        for name, weight in zip(names, weights.unbind(-1), strict=True):
            key = f"gate_{m}_{name}"
            columns[key] = columns[key] + weight if key in columns else weight
    for m, gates in explanation["inner_gates"].items():
        for i, weights in enumerate(gates, 1):
            columns |= {f"gate_{m}_G{i}_X{j}": weight for j, weight in enumerate(weights.unbind(-1))}
    return columns


STROKES = ("-", "--", ":", "-.")


def draw(path: Path, title: str, table: pd.DataFrame, model: FusionModel) -> None:
    """Over one time axis: the prediction, then for each modality its update norms, then its gate weights."""
    gated = model.modalities if model.options.gates != "none" else ()
    figure, axes = new_figure(
        1 + len(model.modalities) + len(gated), 2.2 + 1.5 * len([*model.modalities, *gated])
    )
    time, first, rest = table["time"], axes[0], iter(axes[1:])
    first.axhline(0, color="0.8", linewidth=0.8)
    for i, target in enumerate(model.targets):
        first.plot(time, table[target], color=colour(target, i), label=target)
    absent = table["valid"] == 0
    if absent.any():
        first.fill_between(time, -1, 1, where=absent, color="0.9", step="mid", label="no features")
    first.set(ylabel="prediction\n(−1 to 1)", ylim=(-1.05, 1.05), title=title)
    for m, axis in zip(model.modalities, rest, strict=False):
        for i, name in enumerate(column for column in table if column.startswith(f"update_{m}_")):
            shade = str(0.55 * (i % 2))
            axis.plot(
                time, table[name], label=f"pass {i + 1}", color=shade, linestyle=STROKES[i % len(STROKES)]
            )
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
    save_figure(figure, path)
