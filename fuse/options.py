"""The options that commands of `affuse fuse` share, and others that take a run, a model or a preset."""

from __future__ import annotations

from importlib import import_module

import click

from affuse.console import CONFIG, DEVICE, FOLDER, JSON, STORE, completing, one_of, set_option, together
from affuse.errors import UsageError

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
ENSEMBLE = click.option(
    "--ensemble", default="mean", show_default=True, shell_complete=one_of("mean", "ccc"),
    help="Of all folds, for other videos: mean, ccc.",
)  # fmt: skip
RUN = click.option("--run", type=FOLDER, required=True, help="Finished run folder.")
RUNS = click.option(
    "--run", "runs", type=FOLDER, multiple=True, required=True, help="Finished run folder; of several, their mean."
)
LABELS = click.option("--labels", type=FOLDER, required=True, help="Folder with train/ and validation/.")
PRESET = click.option(
    "--preset",
    shell_complete=completing(lambda: import_module("affuse.fuse.training.presets").PRESETS),
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
STREAM = click.option("--stream", is_flag=True, help="Each frame's values as if nothing after it were known.")
EVERY = click.option("--every", type=float, metavar="SECONDS", help="Table rows that stand for so many seconds each.")
TRAIN_SET = set_option(lambda: import_module("affuse.fuse.training.settings").TrainSettings)
JOBS = click.option(
    "--jobs", type=click.IntRange(1), metavar="N",
    help="Runs at the same time, each in a process.  [default: about one per core; on a GPU 1]",
)  # fmt: skip
training_options = together(PRESET, TRAIN_DEVICE, JSON, CONFIG, TRAIN_SET)  # how to train, and how to answer
trials_options = together(SEEDS, STORE, LABELS, TRIALS_OUT, JOBS)
showing_options = together(STORE, VIDEOS_OUT, DEVICE, JSON)
