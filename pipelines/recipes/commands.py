"""`affuse recipe …`: options and help only; every command is one call into a package, imported when it runs."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from affuse.console import (
    CONFIG,
    FILE,
    FOLDER,
    JSON,
    VIEWS,
    WEIGHTS,
    Group,
    answer,
    completing,
    compute_options,
    one_of,
    say,
    show_progress,
)
from affuse.errors import UsageError
from affuse.extract.profiles import profile_option
from affuse.fuse.options import COMPLETED, ENSEMBLE, JOBS, PRESET, TRAIN_SET
from affuse.fuse.progress import show_epoch

NAME = click.argument(
    "name", shell_complete=completing(lambda: import_module("affuse.pipelines.recipes.known").RECIPES)
)
ROOT = click.argument("root", type=FOLDER)
TEST_LIST = click.option("--test-list", type=FILE, help="Aff-Wild2: the challenge's list of test videos.")


@click.group(cls=Group)
def recipe() -> None:
    """Data sets as they are released, from their folder to a table.

    \b
    affuse recipe list
    affuse recipe check recola RECOLA
    affuse recipe run recola RECOLA --out recola
    """


@recipe.command("list")
@JSON
def list_(as_json) -> None:
    """List the data sets there is a recipe for.

    Of each what it has, its licence, and where to ask for it.

    \b
    affuse recipe list
    """
    from affuse.fuse.reports.tables import aligned
    from affuse.pipelines.recipes.known import facts

    rows = facts()
    head = ["name", "has", "licence", "ask"]
    answer(rows, as_json, "\n".join(aligned(head, [[row[key] for key in head] for row in rows], str.ljust)))


@recipe.command()
@NAME
@ROOT
@TEST_LIST
@JSON
def check(name, root, test_list, as_json) -> None:
    """What there is of the data set NAME below ROOT.

    It stands beside what is known of it, with what is missing or unreadable. Exit 1 where something is.

    \b
    affuse recipe check aff-wild2 Aff-Wild2
    """
    from affuse.pipelines.aff_wild2 import data as aff_wild2
    from affuse.pipelines.recipes import dataset
    from affuse.pipelines.recipes.known import named

    about = named(name)
    if isinstance(about, dataset.Recipe):
        _only_aff_wild2(test_list=test_list)
        report = dataset.check(dataset.find_data(about, root))
        text, whole = dataset.describe_check(report), dataset.is_whole(report)
    else:
        report = aff_wild2.check(aff_wild2.discover(root, test_list))
        text, whole = aff_wild2.describe_check(report), not (report["without_media"] or report["unreadable"])
    answer(report, as_json, text)
    sys.exit(not whole)


@recipe.command(goes_on=True)
@NAME
@ROOT
@click.option("--out", type=FOLDER, required=True, help="Folder for features, labels and runs; made, or gone on with.")
@click.option(
    "--model", "models", multiple=True, shell_complete=COMPLETED,
    help="May be repeated.  [default: rjcma; of one modality: unimodal]",
)  # fmt: skip
@PRESET
@click.option(
    "--split", shell_complete=one_of("official", "subject"),
    help="official, or subject: folds that keep subjects together.  [default: official, if any]",
)  # fmt: skip
@click.option(
    "--gold", shell_complete=one_of("published", "mean", "ewe"),
    help="Of several raters: published, mean, or ewe, weighted by agreement.  [default: published]",
)  # fmt: skip
@ENSEMBLE
@JOBS
@click.option("--features", type=FOLDER, help="A store to use instead of extracting.")
@profile_option("paper")
@click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
@VIEWS
@click.option(
    "--face", shell_complete=one_of("main", "left", "right", "largest"),
    help="Whom to follow: main, left, right, largest.  [default: main]",
)  # fmt: skip
@click.option("--allow-missing", is_flag=True, help="Go on without what is missing or unreadable.")
@TEST_LIST
@click.option("--sample", type=FILE, help="Aff-Wild2: the challenge's sample submission; ours has its rows.")
@WEIGHTS
@compute_options
@JSON
@CONFIG
@TRAIN_SET
def run(name, root, out, models, preset, split, gold, ensemble, jobs, features, profile, allow_untrained, views, face,
        allow_missing, test_list, sample, weights_dir, as_json, config, assignments, **compute) -> None:  # fmt: skip
    """All the way with the data set NAME below ROOT.

    Check, extract, train on its own split or on folds, table.

    \b
    affuse recipe run recola RECOLA --out recola
    affuse recipe run aff-wild2 Aff-Wild2 --out aff-wild2 --model rjcma --model lfan
    """
    from affuse.extract.extraction import Compute, extract_settings
    from affuse.fuse.training.settings import train_settings
    from affuse.pipelines.aff_wild2.recipe import run_aff_wild2
    from affuse.pipelines.recipes.dataset import Recipe
    from affuse.pipelines.recipes.known import named
    from affuse.pipelines.recipes.recipe import defaults, run_recipe

    about = named(name)
    common = {
        "features": features, "ensemble": ensemble, "jobs": jobs, "on_epoch": show_epoch, "weights_dir": weights_dir,
        "allow_untrained": allow_untrained, "allow_missing": allow_missing, "compute": Compute.of(**compute),
        "announce": say, "progress": show_progress,
    }  # fmt: skip
    if isinstance(about, Recipe):
        _only_aff_wild2(test_list=test_list, sample=sample)
        extraction = extract_settings(profile, views=views, face=face)
        own = defaults(about, config)
        training = train_settings(config, assignments, preset=preset, device=compute["device"], **own)
        own = {"gold": gold or "published", "split": split}
        result = run_recipe(about, root, out, models or about.models, extraction, training, **own, **common)
    else:
        if given := [option for option, value in (("split", split), ("gold", gold), ("face", face)) if value]:
            raise UsageError(f"--{given[0]} is not for {about.title}, which brings its own.")
        extraction = extract_settings(profile, given_faces=True, views=views)
        published = None if config else "released"
        training = train_settings(config, assignments, preset=preset or published, device=compute["device"])
        result = run_aff_wild2(
            root, out, models or ["rjcma"], extraction, training, test_list=test_list, sample=sample, **common
        )  # fmt: skip
    answer(result, as_json, result["table"])


def _only_aff_wild2(**options) -> None:
    for option, value in options.items():
        if value:
            raise UsageError(f"--{option.replace('_', '-')} is for aff-wild2 only. Leave it out.")
