"""The command line: options and help only. Every command is one call into a package, which it imports when it runs.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 the work failed for some input, 2 wrong usage.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click

from features.errors import AffuseError
from features.version import VERSION

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
SET = click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated."
)
CONFIG = click.option("--config", type=FILE, help="YAML file of settings; --set goes over it.")
DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto.")
WEIGHTS = click.option(
    "--weights-dir", type=FOLDER, envvar="AFFUSE_WEIGHTS", help="Folder of backbone weights."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
STORE = click.option("--features", "store", type=FOLDER, required=True, help="Feature store.")
RUN = click.option("--run", type=FOLDER, required=True, help="Finished run folder.")
LABELS = click.option("--labels", type=FOLDER, required=True, help="Folder with train/ and validation/.")
PRESET = click.option("--preset", help="Schedule: rcma, released, grjca.  [default: released]")
SEEDS = click.option("--seeds", default="0", show_default=True, help="Training seeds, separated by commas.")
TRAIN_DEVICE = click.option("--device", help="cpu, cuda, cuda:1, or auto.  [default: auto]")
TRIALS_OUT = click.option(
    "--out", type=FOLDER, required=True, help="Folder of runs and tables; made, or gone on with."
)
RATE = click.option("--rate", type=float, help="Rows per second of label files without a time column.")


def say(text: str) -> None:
    """A message for the person watching; results are printed with click.echo."""
    click.echo(text, err=True)


def show_epoch(row: dict) -> None:
    if sys.stderr.isatty():
        text = f"\r  epoch {row['epoch']} of {row['epochs']}: CCC {row['ccc_mean']:.3f}"
        click.echo(text, err=True, nl=row["epoch"] == row["epochs"])


def show_progress(done: int, todo: int, failure: str | None) -> None:
    if failure:
        say(f"failed: {failure}")
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {todo} videos", err=True, nl=done == todo)


class Messages(logging.Handler):
    """What the packages have to say, as sentences on stderr, each once."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        if text not in self.said:
            self.said.add(text)
            say(text)


class Commands(click.Group):
    """Turns our errors, and Ctrl-C, into a sentence and an exit status."""

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except AffuseError as error:
            say(f"Error: {error}")
            context.exit(error.exit_code)
        except KeyboardInterrupt:
            say("Stopped. What was finished is kept; the same command goes on from there.")
            context.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="affuse")
def main() -> None:
    """Continuous valence and arousal from video.

    extract keeps frozen features of videos in a store; fuse trains temporal convolutions and recursive joint
    cross-attention over them; predict does both for new videos.
    """
    logger = logging.getLogger("affuse")
    logger.handlers = [Messages()]


@main.command()
@click.option("--video-dir", type=FOLDER, required=True, help="Folder of videos, searched at every depth.")
@click.option("--out", type=FOLDER, required=True, help="Feature store; made, or gone on with.")
@click.option(
    "--profile", default="paper", show_default=True, help="Backbones: paper, or offline (from pip packages)."
)
@WEIGHTS
@click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
@click.option("--faces-dir", type=FOLDER, help="Given face crops, <video>/<frame:05d>.jpg from 00001.")
@click.option("--transcripts", type=FOLDER, help="Given transcripts, <video>.json, .vtt or .srt.")
@click.option("--retry-failed", is_flag=True, help="Try videos again that could not be decoded.")
@DEVICE
@CONFIG
@SET
def extract(video_dir, out, profile, weights_dir, allow_untrained, faces_dir, transcripts, retry_failed, device,
            config, assignments):  # fmt: skip
    """Extract the features of a folder of videos into a store. What is there already is not made again."""
    from pipelines.extraction import describe, extract_folder, extract_settings

    settings = extract_settings(profile, config, assignments, faces_dir is not None, transcripts is not None)
    summary, _ = extract_folder(
        video_dir, out, settings, weights_dir=weights_dir, allow_untrained=allow_untrained, faces_dir=faces_dir,
        transcripts=transcripts, device=device, retry_failed=retry_failed, announce=say, progress=show_progress,
    )  # fmt: skip
    click.echo(describe(summary))
    for video_id in summary.kept:
        if video_id in summary.failed:
            say(f"failed: {video_id}: {summary.failed[video_id]}")
    sys.exit(bool(summary.failed))


@main.group()
def features() -> None:
    """Look at a feature store, and check it."""


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def info(store, as_json) -> None:
    """What a store holds: settings, backbones, and the status of every video."""
    from features.report import describe
    from features.store import FeatureStore

    facts = FeatureStore(store).info()
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else describe(facts))


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def verify(store, as_json) -> None:
    """Read every byte of a store and compare it with its digests. Exit 1 where something is damaged."""
    from dataclasses import asdict

    from features.report import describe_verification
    from features.store import FeatureStore

    verification = FeatureStore(store).verify()
    if as_json:
        click.echo(json.dumps(asdict(verification), indent=2))
    else:
        click.echo(describe_verification(verification))
    sys.exit(bool(verification.problems))


@features.command("import")
@click.argument("store", type=FOLDER)
@click.option("--from", "source", type=FOLDER, required=True, help="Folder of folders visual, audio, text.")
@click.option("--folder", "folders", multiple=True, metavar="MODALITY=NAME", help="A folder of another name.")
@click.option(
    "--rate", "rates", multiple=True, metavar="[MODALITY=]RATE", help="Rows per second without a time."
)
@click.option("--time-column", default="time", show_default=True, help="The column of seconds.")
@click.option(
    "--ignore", multiple=True, metavar="COLUMN", help="A column that is no feature; may be repeated."
)
@JSON
def import_(store, source, folders, rates, time_column, ignore, as_json) -> None:
    """Features computed elsewhere into a store: <modality>/<video>.npy, .npz or .csv; NaN marks missing rows."""
    from features.importing import describe, import_features, parse_layout

    layout = parse_layout(folders, rates, time_column, ignore)
    result = import_features(source, store, layout, show_progress)
    click.echo(json.dumps(result, indent=2) if as_json else describe(result))
    sys.exit(bool(result["failed"]))


@features.command("export")
@click.argument("store", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to fill; it must be empty or new.")
@click.option("--format", "kind", default="npz", show_default=True, help="npz, parquet, or abaw3.")
@JSON
def export(store, out, kind, as_json) -> None:
    """Features for other programs: a file per video and modality, or the folders of the ABAW3 and RJCMA code."""
    from features.exporting import export_features
    from features.store import FeatureStore

    result = export_features(FeatureStore(store), out, kind, show_progress)
    click.echo(
        json.dumps(result, indent=2)
        if as_json
        else f"{result['videos']} videos, {result['files']} files: {out}"
    )


@main.group()
def fuse() -> None:
    """Train fusion models over a store, evaluate them, predict with them."""


@fuse.command()
@STORE
@LABELS
@click.option(
    "--out", type=FOLDER, required=True, help="Run folder; an unfinished run in it is gone on with."
)
@click.option("--model", help="Fusion model; `affuse fuse models` lists them.  [default: rjcma]")
@PRESET
@click.option("--seed", type=int, help="Seed of weights, order and dropout.  [default: 0]")
@RATE
@TRAIN_DEVICE
@JSON
@CONFIG
@SET
def train(store, labels, out, model, preset, seed, rate, device, as_json, config, assignments) -> None:
    """Train a model on a store's features and leave a run folder."""
    from fuse import train as run_training
    from fuse import train_settings

    settings = train_settings(
        config, assignments, model=model, preset=preset, seed=seed, label_rate=rate, device=device
    )

    def on_epoch(row: dict) -> None:
        if sys.stderr.isatty():
            say(
                "  ".join(
                    f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, (int, float))
                )
            )

    result = run_training(store, labels, out, settings, on_epoch)
    best = result["best"]
    scores = ", ".join(f"{target} {value:.4f}" for target, value in best["ccc"].items())
    sentence = (
        f"{result['epochs']} epochs; best at {best['epoch']}: validation CCC {scores}. Run: {result['run']}"
    )
    click.echo(json.dumps(result, indent=2) if as_json else sentence)


@fuse.command()
@RUN
@STORE
@LABELS
@click.option("--partition", default="validation", show_default=True, help="train, validation, test, or all.")
@click.option(
    "--smooth", default="none", show_default=True, help="Moving mean: none, fit (on train), or seconds."
)
@click.option(
    "--delay", default="none", show_default=True, help="Raters' delay: none, fit (on train), or seconds."
)
@click.option(
    "--permutations", default=100, show_default=True, help="Swapped predictions for the chance level."
)
@RATE
@DEVICE
@JSON
def evaluate(run, store, labels, partition, smooth, delay, permutations, rate, device, as_json) -> None:
    """Score a run on labelled videos: CCC over all frames with its interval, and beside it CCC per video, Pearson r,
    RMSE, and what chance gives."""
    from fuse import evaluate as score
    from fuse.report import score_table

    result = score(run, store, labels, partition, device, smooth, delay, rate, permutations)
    click.echo(json.dumps(result, indent=2) if as_json else score_table(result))


@fuse.command("crossval")
@STORE
@LABELS
@click.option("--out", type=FOLDER, required=True, help="Folder of one run per fold; finished ones are kept.")
@click.option("--videos", type=FILE, required=True, help="CSV with a column video, and fold or subject.")
@click.option("--by", help="Column that makes the folds.  [default: fold; with --k: subject]")
@click.option("--k", type=int, help="Make so many folds, keeping each subject in one.")
@click.option(
    "--ensemble", default="mean", show_default=True, help="Of all folds, for other videos: mean, ccc."
)
@click.option("--score-test", is_flag=True, help="Score the ensemble on the test partition.")
@click.option("--model", help="Fusion model.  [default: rjcma]")
@PRESET
@RATE
@TRAIN_DEVICE
@JSON
@CONFIG
@SET
def crossval_(store, labels, out, videos, by, k, ensemble, score_test, model, preset, rate, device, as_json,
              config, assignments) -> None:  # fmt: skip
    """Train a model per fold, predict each video by the one that has not seen it, and score them all."""
    from fuse import choose_folds, crossval, train_settings
    from fuse.cross_validation import describe
    from fuse.report import score_table

    settings = train_settings(config, assignments, model=model, preset=preset, label_rate=rate, device=device)
    folds = choose_folds(labels, videos, by, k)
    result = crossval(
        store, labels, out, folds, settings, ensemble, score_test,
        on_epoch=lambda fold, row: show_epoch(row),
        on_fold=lambda fold, made: say(f"fold {fold}: {'trained' if made else 'already there'}"),
    )  # fmt: skip
    click.echo(json.dumps(result, indent=2) if as_json else describe(result, score_table(result)))


@fuse.command("predict")
@RUN
@STORE
@click.option("--out", type=FOLDER, required=True, help="Folder for a CSV and a figure per video.")
@DEVICE
@JSON
def fuse_predict(run, store, out, device, as_json) -> None:
    """Predict on the videos of a store: time, targets, valid."""
    from fuse import predict as run_prediction

    finish_prediction(run_prediction(run, store, out, device=device), as_json)


def finish_prediction(result: dict, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        for video_id, made in result["written"].items():
            click.echo(
                f"{video_id}: {made['frames']} frames, {made['valid']} valid: {made['csv']}, {made['figure']}"
            )
    for video_id, reason in result["failed"].items():
        say(f"failed: {video_id}: {reason}")
    sys.exit(bool(result["failed"]))


@fuse.command("explain")
@RUN
@STORE
@click.option("--out", type=FOLDER, required=True, help="Folder for a CSV and a figure per video.")
@DEVICE
@JSON
def fuse_explain(run, store, out, device, as_json) -> None:
    """Make attention visible: per frame the size of every update and the gates' weights, beside the prediction."""
    from fuse import explain

    finish_prediction(explain(run, store, out, device=device), as_json)


@fuse.command("compare")
@click.option(
    "--models",
    required=True,
    metavar="NAMES",
    help="Separated by commas; each a model, or model:variant, or either with @modalities: "
    "rjcma,rjcma:paper,unimodal@visual,grjca@visual+audio+text. all is the whole family.",
)
@SEEDS
@STORE
@LABELS
@TRIALS_OUT
@click.option("--reference", help="Model that the others are compared with.  [default: the best]")
@PRESET
@TRAIN_DEVICE
@JSON
@CONFIG
@SET
def fuse_compare(
    models, seeds, store, labels, out, reference, preset, device, as_json, config, assignments
) -> None:
    """Train several models with several seeds under one protocol: a table, learning curves, and the differences with
    intervals from a bootstrap over videos. Runs already made are not made again."""
    from fuse import compare, train_settings
    from fuse.entries import parse_seeds

    settings = train_settings(config, assignments, preset=preset, device=device)
    result = compare(
        store, labels, out, models, parse_seeds(seeds), settings, reference, announce=say, on_epoch=show_epoch
    )
    click.echo(json.dumps(result.facts, indent=2) if as_json else result.text)


@fuse.command("ablate")
@click.option(
    "--model", default="rjcma", show_default=True, help="Model, as in `affuse fuse compare --models`."
)
@SEEDS
@STORE
@LABELS
@TRIALS_OUT
@PRESET
@TRAIN_DEVICE
@JSON
@CONFIG
@SET
def fuse_ablate(model, seeds, store, labels, out, preset, device, as_json, config, assignments) -> None:
    """What each part of a model is worth: recursions 0 to 4, temporal encoder, modalities, gates, tied weights. A
    table and a figure each. Runs already made are not made again."""
    from fuse import ablate, train_settings
    from fuse.entries import parse_seeds

    settings = train_settings(config, assignments, preset=preset, device=device)
    result = ablate(
        store, labels, out, model, parse_seeds(seeds), settings, announce=say, on_epoch=show_epoch
    )
    click.echo(json.dumps(result.facts, indent=2) if as_json else result.text)


@fuse.command()
@JSON
def models(as_json) -> None:
    """The fusion models: paper, joint, recursions, gates, temporal encoder, parameters."""
    from fuse import describe
    from fuse.report import model_table

    rows = describe()
    click.echo(json.dumps(rows, indent=2) if as_json else model_table(rows))


@main.command()
@RUN
@click.option(
    "--out", type=FOLDER, required=True, help="Folder for features, and a CSV and a figure per video."
)
@WEIGHTS
@DEVICE
@JSON
@click.argument("videos", nargs=-1, required=True, type=FILE)
def predict(run, out, weights_dir, device, as_json, videos) -> None:
    """Valence and arousal of new VIDEOS, end to end."""
    from pipelines.prediction import predict_videos

    result = predict_videos(
        run, list(videos), out, weights_dir=weights_dir, device=device, announce=say, progress=show_progress
    )
    finish_prediction(result, as_json)


@main.command()
@click.option(
    "--out", type=FOLDER, default="demo", show_default=True, help="Folder for videos, features and runs."
)
@SEEDS
@click.option("--data-seed", default=0, show_default=True, help="Seed of the data set.")
@WEIGHTS
@DEVICE
@JSON
def demo(out, seeds, data_seed, weights_dir, device, as_json) -> None:
    """Make videos whose valence and arousal are known, run the whole pipeline on them, print a table."""
    from pipelines.demo import run_demo

    result = run_demo(out, seeds, data_seed, weights_dir, device, announce=say, progress=show_progress)
    click.echo(json.dumps(result.facts, indent=2) if as_json else result.text)


@main.command("aff-wild2")
@click.argument("root", type=FOLDER)
@click.option(
    "--out", type=FOLDER, default="aff-wild2", show_default=True, help="Folder for features and runs."
)
@click.option("--check", "only_check", is_flag=True, help="Report on the data, and do nothing else.")
@click.option("--test-list", type=FILE, help="The challenge's list of test videos, one per line.")
@click.option("--sample", type=FILE, help="The challenge's sample submission; ours has its rows.")
@click.option(
    "--model", "models", multiple=True, default=["rjcma"], show_default=True, help="May be repeated."
)
@PRESET
@click.option(
    "--ensemble", default="mean", show_default=True, help="Of the six folds, for test videos: mean, ccc."
)
@click.option("--features", type=FOLDER, help="A store to use instead of extracting.")
@click.option("--profile", default="paper", show_default=True, help="Backbones: paper, or offline.")
@click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
@click.option("--allow-missing", is_flag=True, help="Go on without the videos that are not there.")
@WEIGHTS
@DEVICE
@JSON
@CONFIG
@SET
def aff_wild2(root, out, only_check, test_list, sample, models, preset, ensemble, features, profile, allow_untrained,
              allow_missing, weights_dir, device, as_json, config, assignments) -> None:  # fmt: skip
    """Aff-Wild2 in the challenge's layout: features, official split and six folds, table, submission file."""
    from fuse import train_settings
    from pipelines.aff_wild2 import run_aff_wild2
    from pipelines.aff_wild2_data import check, describe_check, discover
    from pipelines.extraction import extract_settings

    if only_check:
        report = check(discover(root, test_list))
        click.echo(json.dumps(report, indent=2) if as_json else describe_check(report))
        sys.exit(bool(report["without_media"] or report["unreadable"]))
    training = train_settings(config, assignments, preset=preset, device=device)
    result = run_aff_wild2(
        root, out, models, extract_settings(profile, given_faces=True), training, test_list=test_list,
        sample=sample, features=features, ensemble=ensemble, weights_dir=weights_dir,
        allow_untrained=allow_untrained, allow_missing=allow_missing, announce=say, progress=show_progress,
    )  # fmt: skip
    click.echo(json.dumps(result, indent=2) if as_json else result["table"])


@main.command()
@WEIGHTS
@JSON
def doctor(weights_dir, as_json) -> None:
    """What this machine has: backbones found or missing, verified or not, their licences; libraries; devices."""
    from extract.doctor import environment, report, table

    backbones = report(weights_dir)
    surroundings = environment()
    if as_json:
        click.echo(json.dumps({"environment": surroundings, "backbones": backbones}, indent=2))
    else:
        click.echo(table(surroundings, backbones))


if __name__ == "__main__":
    main()
