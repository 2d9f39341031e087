"""`affuse fuse …`: options and help only; every command is one call into the package, imported when it runs."""

from __future__ import annotations

import sys

import click

from affuse.console import DEVICE, FOLDER, JSON, STORE, Group, answer, one_of, shown, tell_failures
from affuse.errors import UsageError, counted
from affuse.fuse.experiments.commands import crossval_, fuse_ablate, fuse_compare, fuse_search
from affuse.fuse.options import (
    COMPLETED,
    EVERY,
    JOBS,
    LABELS,
    RATE,
    RUN,
    RUNS,
    SMOOTH,
    STREAM,
    parse_seeds,
    showing_options,
    training_options,
)
from affuse.fuse.progress import show_epoch


@click.group(cls=Group)
def fuse() -> None:
    """Train fusion models over a store, evaluate and use them.

    \b
    affuse fuse train --features store --labels labels --out run
    affuse fuse evaluate --run run --features store --labels labels
    affuse fuse predict --run run --features store --out predictions
    """


@fuse.command(goes_on=True)
@STORE
@LABELS
@click.option("--out", type=FOLDER, required=True, help="Run folder; an unfinished run in it is gone on with.")
@click.option(
    "--model", shell_complete=COMPLETED, help="Fusion model; `affuse fuse models` lists them.  [default: rjcma]"
)
@click.option("--seed", type=int, help="Seed of weights, order and dropout.  [default: 0]")
@click.option("--seeds", type=parse_seeds, metavar="TEXT", help="A run of several seeds, which predict together: 0..4.")
@RATE
@JOBS
@training_options
def train(store, labels, out, model, preset, seed, seeds, rate, jobs, device, as_json, config, assignments) -> None:
    """Train a model on a store's features and leave a run folder.

    \b
    affuse fuse train --features store --labels labels --out run
    affuse fuse train --features store --labels labels --out run --model grjca --set epochs=20
    """
    from affuse.fuse import train as run_training
    from affuse.fuse import train_seeds, train_settings

    settings = train_settings(
        config, assignments, model=model, preset=preset, seed=seed, label_rate=rate, device=device
    )
    if seeds and seed is not None:
        raise UsageError("--seed and --seeds both say which seeds. Give one of them.")
    if jobs and not seeds:
        raise UsageError("--jobs says how many seeds are trained at the same time. Give --seeds, too.")
    if seeds:
        result = train_seeds(store, labels, out, seeds, settings, show_epoch, jobs)
        scores, alone = (", ".join(f"{t} {v:.4f}" for t, v in ccc.items()) for ccc in (result["ccc"], result["alone"]))
        many, run = counted(len(seeds), "seed"), result["run"]
        sentence = f"{many}: validation CCC {scores}; of each alone, on average, {alone}. Run: {run}"
        answer(result, as_json, sentence)
        return
    result = run_training(store, labels, out, settings, show_epoch)
    best = result["best"]
    scores = ", ".join(f"{target} {value:.4f}" for target, value in best["ccc"].items())
    tried = counted(result["epochs"], "candidate" if "ridge" in best else "epoch")
    sentence = f"{tried}; best at {best['epoch']}: validation CCC {scores}. Run: {result['run']}"
    answer(result, as_json, sentence)


@fuse.command()
@RUN
@STORE
@LABELS
@click.option(
    "--partition",
    default="validation",
    show_default=True,
    shell_complete=one_of("train", "validation", "test", "all"),
    help="train, validation, test, or all.",
)
@click.option(
    "--smooth",
    default="none",
    show_default=True,
    shell_complete=one_of("none", "fit"),
    help="Moving mean: none, fit (on train), or seconds.",
)
@click.option(
    "--delay",
    default="none",
    show_default=True,
    shell_complete=one_of("none", "fit"),
    help="Raters' delay: none, fit (on train), or seconds.",
)
@click.option("--permutations", default=100, show_default=True, help="Swapped predictions for the chance level.")
@STREAM
@RATE
@DEVICE
@JSON
def evaluate(run, store, labels, partition, smooth, delay, permutations, stream, rate, device, as_json) -> None:
    """Score a run on labelled videos.

    CCC over all frames with its interval, and beside it CCC per video, Pearson r, RMSE, and what chance gives.

    \b
    affuse fuse evaluate --run run --features store --labels labels
    affuse fuse evaluate --run run --features store --labels labels --partition test --smooth fit
    """
    from affuse.fuse import evaluate as score
    from affuse.fuse.reports.tables import score_table

    result = score(run, store, labels, partition, device, smooth, delay, rate, permutations, stream)
    answer(result, as_json, score_table(result))


@fuse.command("predict")
@RUNS
@showing_options
@SMOOTH
@EVERY
@STREAM
@click.option("--labels", type=FOLDER, help="Folder of labels, to draw the truth where it is known.")
def fuse_predict(runs, store, out, device, as_json, smooth, every, stream, labels) -> None:
    """Predict on the videos of a store.

    A table per video (time, targets, whether there was a face, sound and words, valid), a figure, and a summary.

    \b
    affuse fuse predict --run run --features store --out predictions
    affuse fuse predict --run run --features store --out predictions --labels labels
    affuse fuse predict --run fold0 --run fold1 --features store --out predictions
    """
    from affuse.fuse import predict as run_prediction

    how = {"device": device, "smooth": smooth, "every": every, "stream": stream}
    result = run_prediction(runs, store, out, labels=labels, **how)
    finish_prediction(result, as_json)


@fuse.command("explain")
@RUN
@showing_options
def fuse_explain(run, store, out, device, as_json) -> None:
    """Make attention visible.

    Per frame the size of every update and the gates' weights, beside the prediction.

    \b
    affuse fuse explain --run run --features store --out explained
    """
    from affuse.fuse import explain

    finish_prediction(explain(run, store, out, device=device), as_json)


@fuse.command()
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=COMPLETED)
@JSON
def models(names, as_json) -> None:
    """List the fusion models, all or those named.

    Of each its paper, joint, recursions, gates, temporal encoder and parameters. A model of your own is FILE.py:NAME.

    \b
    affuse fuse models
    affuse fuse models rjcma lfan
    """
    from affuse.fuse import describe
    from affuse.fuse.reports.tables import model_table

    rows = describe(names)
    answer(rows, as_json, model_table(rows))


for command in (crossval_, fuse_compare, fuse_ablate, fuse_search):
    fuse.add_command(command)


def finish_prediction(result: dict, as_json: bool) -> None:
    """Say what was written and what failed, and leave with 1 where something did."""
    lines = []
    for video, made in result["written"].items():
        faces = f", {made['face']} with a face" if "face" in made else ""
        counts = f"{counted(made['frames'], 'frame')}{faces}, {made['valid']} valid"
        files = ", ".join(shown(made[kind]) for kind in ("csv", "figure", "vtt", "video") if made.get(kind))
        lines.append(f"{shown(video)}: {counts}: {files}")
    if lines and "summary" in result:
        lines.append(f"All videos: {shown(result['summary'])}")
    if lines or as_json:
        answer(result, as_json, "\n".join(lines))
    tell_failures(result["failed"])
    sys.exit(bool(result["failed"]))
