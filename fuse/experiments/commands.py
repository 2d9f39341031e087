"""`affuse fuse crossval`, `compare`, `ablate` and `search`: options and help only, as in `affuse.fuse.commands`."""

from __future__ import annotations

import click

from affuse.console import FILE, FOLDER, STORE, Command, answer, completing, say
from affuse.fuse.options import (
    COMPLETED,
    ENSEMBLE,
    JOBS,
    LABELS,
    RATE,
    TRIALS_OUT,
    known_models,
    training_options,
    trials_options,
)
from affuse.fuse.progress import show_epoch


@click.command("crossval", cls=Command, goes_on=True)
@STORE
@LABELS
@click.option("--out", type=FOLDER, required=True, help="Folder of one run per fold; finished ones are kept.")
@click.option("--videos", type=FILE, required=True, help="CSV with a column video, and fold or subject.")
@click.option("--by", help="Column that makes the folds.  [default: fold; with --k: subject]")
@click.option("--k", type=int, help="Make so many folds, keeping each subject in one.")
@ENSEMBLE
@click.option("--score-test", is_flag=True, help="Score the ensemble on the test partition.")
@click.option("--model", shell_complete=COMPLETED, help="Fusion model.  [default: rjcma]")
@RATE
@JOBS
@training_options
def crossval_(store, labels, out, videos, by, k, ensemble, score_test, model, preset, rate, jobs, device, as_json,
              config, assignments) -> None:  # fmt: skip
    """Train a model per fold and score them all.

    Each video is predicted by the model that has not seen it.

    \b
    affuse fuse crossval --features store --labels labels --videos folds.csv --out folds
    affuse fuse crossval --features store --labels labels --videos subjects.csv --k 5 --out folds
    """
    from affuse.fuse import choose_folds, crossval, train_settings
    from affuse.fuse.reports.tables import fold_table

    settings = train_settings(config, assignments, model=model, preset=preset, label_rate=rate, device=device)
    folds = choose_folds(labels, videos, by, k)
    result = crossval(
        store, labels, out, folds, settings, ensemble, score_test,
        on_epoch=show_epoch,
        on_fold=lambda fold, made: say(f"fold {fold}: {'trained' if made else 'already there'}"),
        jobs=jobs,
    )  # fmt: skip
    answer(result, as_json, fold_table(result))


@click.command("compare", cls=Command, goes_on=True)
@click.option(
    "--models",
    required=True,
    metavar="NAMES",
    shell_complete=completing(lambda: ["all", *known_models()], several=True),
    help="Separated by commas; each a model, or model:variant, or either with @modalities: "
    "rjcma,rjcma:paper,unimodal@visual,grjca@visual+audio+text. all is the family and the baselines.",
)
@trials_options
@click.option(
    "--reference", shell_complete=COMPLETED, help="Model that the others are compared with.  [default: the best]"
)
@training_options
def fuse_compare(
    models, seeds, store, labels, out, jobs, reference, preset, device, as_json, config, assignments
) -> None:
    """Train several models under one protocol, with several seeds.

    A table, a figure, and the differences with intervals from a bootstrap over videos. Runs already made are not made
    again.

    \b
    affuse fuse compare --models rjcma,concat --features store --labels labels --out comparison
    affuse fuse compare --models all --seeds 0..2 --features store --labels labels --out comparison
    """
    from affuse.fuse import compare, train_settings

    settings = train_settings(config, assignments, preset=preset, device=device)
    result = compare(store, labels, out, models, seeds, settings, reference, say, show_epoch, jobs)
    answer(result.facts, as_json, result.text)


@click.command("ablate", cls=Command, goes_on=True)
@click.option(
    "--model",
    default="rjcma",
    shell_complete=COMPLETED,
    show_default=True,
    help="Model, as in `affuse fuse compare --models`.",
)
@trials_options
@training_options
def fuse_ablate(model, seeds, store, labels, out, jobs, preset, device, as_json, config, assignments) -> None:
    """Train without one part after another: what each is worth.

    Recursions 0 to 4, temporal encoder, modalities, gates, tied weights: a table and a figure each. Runs already made
    are not made again.

    \b
    affuse fuse ablate --features store --labels labels --out ablation
    affuse fuse ablate --model grjca --seeds 0..2 --features store --labels labels --out ablation
    """
    from affuse.fuse import ablate, train_settings

    settings = train_settings(config, assignments, preset=preset, device=device)
    result = ablate(store, labels, out, model, seeds, settings, say, show_epoch, jobs)
    answer(result.facts, as_json, result.text)


@click.command("search", cls=Command, goes_on=True)
@STORE
@LABELS
@TRIALS_OUT
@JOBS
@click.option("--budget", type=int, default=20, show_default=True, help="Trials, those made before among them.")
@click.option("--model", shell_complete=COMPLETED, help="Fusion model.  [default: rjcma]")
@click.option("--seed", type=int, help="Seed of the draws, and of every run.  [default: 0]")
@RATE
@training_options
def fuse_search(
    store, labels, out, jobs, budget, model, seed, rate, preset, device, as_json, config, assignments
) -> None:
    """Search for settings, scored on the validation videos.

    A --set of a range, LOW..HIGH, or of choices, A,B,C, is searched; any other holds for all trials. Trials already
    made are not made again. It needs affuse[search].

    \b
    affuse fuse search --features store --labels labels --out search --set learning_rate=1e-5..1e-3
    affuse fuse search --features store --labels labels --out search --budget 40 --set window=100,200,300 --set hop=100
    """
    from affuse.fuse import search, train_settings
    from affuse.fuse.experiments.space import split_space

    space, fixed = split_space(assignments)
    settings = train_settings(config, fixed, model=model, preset=preset, seed=seed, label_rate=rate, device=device)
    result = search(store, labels, out, space, settings, budget, say, show_epoch, jobs)
    answer(result.facts, as_json, result.text)
