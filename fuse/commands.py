"""`affuse fuse …`: options and help only; every command is one call into the package, imported when it runs."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from affuse.console import (
    CONFIG,
    DEVICE,
    FILE,
    FOLDER,
    JSON,
    SET,
    STORE,
    Group,
    answer,
    completing,
    say,
    show_epoch,
    shown,
    together,
    warn,
)
from affuse.errors import UsageError, counted

MOST_SEEDS = 1000  # in a span


def parse_seeds(seeds: str) -> list[int]:
    """ "0,1,2" or "0..2" → [0, 1, 2], each once. Raises UsageError for anything that is not whole numbers."""
    try:
        spans = [[int(end) for end in part.split("..")] for part in seeds.split(",")]
    except ValueError:
        spans = []
    if not spans or any(len(ends) > 2 or not 0 <= ends[0] <= ends[-1] < ends[0] + MOST_SEEDS for ends in spans):
        raise UsageError(f"--seeds {seeds!r} must be whole numbers separated by commas, or from..to, for example 0..4.")
    return list(dict.fromkeys(seed for ends in spans for seed in range(ends[0], ends[-1] + 1)))


def known_models() -> list[str]:
    """Every model's name, and with :released and :paper where the two differ."""
    from affuse.fuse.models.registry import MODELS

    return [whole for name, spec in MODELS.items() for whole in (name, *(f"{name}:{v}" for v in spec.recursions))]


COMPLETED = completing(known_models)
RUN = click.option("--run", type=FOLDER, required=True, help="Finished run folder.")
RUNS = click.option(
    "--run", "runs", type=FOLDER, multiple=True, required=True, help="Finished run folder; of several, their mean."
)
LABELS = click.option("--labels", type=FOLDER, required=True, help="Folder with train/ and validation/.")
PRESET = click.option(
    "--preset",
    shell_complete=completing(lambda: import_module("affuse.fuse.training.settings").PRESETS),
    help="Ours, affuse, or a paper's: released, rcma, grjca, lfan, jca, rjca, dca, ca.  [default: affuse]",
)
TRAIN_DEVICE = click.option("--device", help="cpu, cuda, cuda:1, or auto.  [default: auto]")
RATE = click.option("--rate", type=float, help="Rows per second of label files without a time column.")
SEEDS = click.option(
    "--seeds", type=parse_seeds, metavar="TEXT", default="0", show_default=True, help="Training seeds: 0,1,2 or 0..2."
)
TRIALS_OUT = click.option("--out", type=FOLDER, required=True, help="Folder of runs and tables; made, or gone on with.")
VIDEOS_OUT = click.option("--out", type=FOLDER, required=True, help="Folder for a CSV and a figure per video.")
SMOOTH = click.option("--smooth", type=float, default=0.0, metavar="SECONDS", help="Moving mean over so many seconds.")
EVERY = click.option("--every", type=float, metavar="SECONDS", help="Table rows that stand for so many seconds each.")
training_options = together(PRESET, TRAIN_DEVICE, JSON, CONFIG, SET)  # how to train, and how to answer
trials_options = together(SEEDS, STORE, LABELS, TRIALS_OUT)
showing_options = together(STORE, VIDEOS_OUT, DEVICE, JSON)


@click.group(cls=Group)
def fuse() -> None:
    """Train fusion models over a store, evaluate them, predict with them."""


@fuse.command()
@STORE
@LABELS
@click.option("--out", type=FOLDER, required=True, help="Run folder; an unfinished run in it is gone on with.")
@click.option(
    "--model", shell_complete=COMPLETED, help="Fusion model; `affuse fuse models` lists them.  [default: rjcma]"
)
@click.option("--seed", type=int, help="Seed of weights, order and dropout.  [default: 0]")
@click.option("--seeds", type=parse_seeds, metavar="TEXT", help="A run of several seeds, which predict together: 0..4.")
@RATE
@training_options
def train(store, labels, out, model, preset, seed, seeds, rate, device, as_json, config, assignments) -> None:
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
    if seeds:
        result = train_seeds(store, labels, out, seeds, settings, show_epoch)
        scores, alone = (", ".join(f"{t} {v:.4f}" for t, v in ccc.items()) for ccc in (result["ccc"], result["alone"]))
        sentence = (
            f"{len(seeds)} seeds: validation CCC {scores}; of each alone, on average, {alone}. Run: {result['run']}"
        )
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
@click.option("--partition", default="validation", show_default=True, help="train, validation, test, or all.")
@click.option("--smooth", default="none", show_default=True, help="Moving mean: none, fit (on train), or seconds.")
@click.option("--delay", default="none", show_default=True, help="Raters' delay: none, fit (on train), or seconds.")
@click.option("--permutations", default=100, show_default=True, help="Swapped predictions for the chance level.")
@RATE
@DEVICE
@JSON
def evaluate(run, store, labels, partition, smooth, delay, permutations, rate, device, as_json) -> None:
    """Score a run on labelled videos: CCC over all frames with its interval, and beside it CCC per video, Pearson r,
    RMSE, and what chance gives."""
    from affuse.fuse import evaluate as score
    from affuse.fuse.reports.tables import score_table

    result = score(run, store, labels, partition, device, smooth, delay, rate, permutations)
    answer(result, as_json, score_table(result))


@fuse.command("crossval")
@STORE
@LABELS
@click.option("--out", type=FOLDER, required=True, help="Folder of one run per fold; finished ones are kept.")
@click.option("--videos", type=FILE, required=True, help="CSV with a column video, and fold or subject.")
@click.option("--by", help="Column that makes the folds.  [default: fold; with --k: subject]")
@click.option("--k", type=int, help="Make so many folds, keeping each subject in one.")
@click.option("--ensemble", default="mean", show_default=True, help="Of all folds, for other videos: mean, ccc.")
@click.option("--score-test", is_flag=True, help="Score the ensemble on the test partition.")
@click.option("--model", shell_complete=COMPLETED, help="Fusion model.  [default: rjcma]")
@RATE
@training_options
def crossval_(store, labels, out, videos, by, k, ensemble, score_test, model, preset, rate, device, as_json,
              config, assignments) -> None:  # fmt: skip
    """Train a model per fold, predict each video by the one that has not seen it, and score them all."""
    from affuse.fuse import choose_folds, crossval, train_settings
    from affuse.fuse.reports.tables import fold_table

    settings = train_settings(config, assignments, model=model, preset=preset, label_rate=rate, device=device)
    folds = choose_folds(labels, videos, by, k)
    result = crossval(
        store, labels, out, folds, settings, ensemble, score_test,
        on_epoch=lambda fold, row: show_epoch(row),
        on_fold=lambda fold, made: say(f"fold {fold}: {'trained' if made else 'already there'}"),
    )  # fmt: skip
    answer(result, as_json, fold_table(result))


@fuse.command("predict")
@RUNS
@showing_options
@SMOOTH
@EVERY
def fuse_predict(runs, store, out, device, as_json, smooth, every) -> None:
    """Predict on the videos of a store: time, targets, whether there was a face, sound and words, valid."""
    from affuse.fuse import predict as run_prediction

    finish_prediction(run_prediction(runs, store, out, device=device, smooth=smooth, every=every), as_json)


@fuse.command("explain")
@RUN
@showing_options
def fuse_explain(run, store, out, device, as_json) -> None:
    """Make attention visible: per frame the size of every update and the gates' weights, beside the prediction."""
    from affuse.fuse import explain

    finish_prediction(explain(run, store, out, device=device), as_json)


@fuse.command("compare")
@click.option(
    "--models",
    required=True,
    metavar="NAMES",
    help="Separated by commas; each a model, or model:variant, or either with @modalities: "
    "rjcma,rjcma:paper,unimodal@visual,grjca@visual+audio+text. all is the family and the baselines.",
)
@trials_options
@click.option("--reference", help="Model that the others are compared with.  [default: the best]")
@training_options
def fuse_compare(models, seeds, store, labels, out, reference, preset, device, as_json, config, assignments) -> None:
    """Train several models with several seeds under one protocol: a table, a figure, and the differences with
    intervals from a bootstrap over videos. Runs already made are not made again.

    \b
    affuse fuse compare --models rjcma,concat --features store --labels labels --out comparison
    affuse fuse compare --models all --seeds 0..2 --features store --labels labels --out comparison
    """
    from affuse.fuse import compare, train_settings

    settings = train_settings(config, assignments, preset=preset, device=device)
    result = compare(store, labels, out, models, seeds, settings, reference, announce=say, on_epoch=show_epoch)
    answer(result.facts, as_json, result.text)


@fuse.command("ablate")
@click.option(
    "--model",
    default="rjcma",
    shell_complete=COMPLETED,
    show_default=True,
    help="Model, as in `affuse fuse compare --models`.",
)
@trials_options
@training_options
def fuse_ablate(model, seeds, store, labels, out, preset, device, as_json, config, assignments) -> None:
    """What each part of a model is worth: recursions 0 to 4, temporal encoder, modalities, gates, tied weights. A
    table and a figure each. Runs already made are not made again."""
    from affuse.fuse import ablate, train_settings

    settings = train_settings(config, assignments, preset=preset, device=device)
    result = ablate(store, labels, out, model, seeds, settings, announce=say, on_epoch=show_epoch)
    answer(result.facts, as_json, result.text)


@fuse.command()
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=COMPLETED)
@JSON
def models(names, as_json) -> None:
    """The fusion models: paper, joint, recursions, gates, temporal encoder, parameters. All, or those named, where a
    model of your own is FILE.py:NAME."""
    from affuse.fuse import describe
    from affuse.fuse.reports.tables import model_table

    rows = describe(names)
    answer(rows, as_json, model_table(rows))


def finish_prediction(result: dict, as_json: bool) -> None:
    """Say what was written and what failed, and leave with 1 where something did."""
    lines = []
    for video, made in result["written"].items():
        faces = f", {made['face']} with a face" if "face" in made else ""
        counts = f"{made['frames']} frames{faces}, {made['valid']} valid"
        files = ", ".join(shown(made[kind]) for kind in ("csv", "figure", "vtt", "video") if made.get(kind))
        lines.append(f"{shown(video)}: {counts}: {files}")
    if lines and "summary" in result:
        lines.append(f"All videos: {shown(result['summary'])}")
    if lines or as_json:
        answer(result, as_json, "\n".join(lines))
    for video, reason in result["failed"].items():
        warn(f"failed: {shown(video)}: {shown(reason)}")
    sys.exit(bool(result["failed"]))
