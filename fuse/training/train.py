"""A training, from a store and labels to a run folder: what is checked, what is loaded, what is decided."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from affuse.device import pick_device, threads
from affuse.errors import AffuseError, UsageError
from affuse.files import as_path
from affuse.fuse.data.clock import choose_rate, read_otherwise
from affuse.fuse.data.corpus import Corpus, Features, as_store
from affuse.fuse.data.fingerprint import fingerprint
from affuse.fuse.data.partitions import find_labels, partition_files
from affuse.fuse.data.pool import Pool
from affuse.fuse.models.model import FusionModel, build_model
from affuse.fuse.scoring.estimate import Estimate
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.learning import Fitting, Learning
from affuse.fuse.training.memory import check_training, measured
from affuse.fuse.training.run import labelled_corpora
from affuse.fuse.training.settings import TrainSettings, as_settings

log = logging.getLogger("affuse")


def train(
    store: Features,
    labels: Path | str,
    out: Path | str,
    settings: TrainSettings | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    pool: Pool | None = None,
    on_end: Callable[[Corpus, Estimate], None] = lambda validation, estimate: None,
) -> dict:
    """Train a model on the store's features and leave a run folder; go on with an unfinished run found there.

    on_epoch is called after every epoch with its row of metrics.csv plus "epochs", the most there will be. Where a pool
    of the store is given, features are drawn from it. on_end hears of the validation videos and what the run predicts.
    Gives {"run", "epochs", "resumed_at", "best": {"epoch", "ccc": {target: …, "mean": …}}, "unlabelled", "left_out"};
    best also has what `candidates` says, for a model without descent, whose epochs are its candidates.
    Raises UsageError for settings that cannot be or a folder that is taken, AffuseError for data that does not fit.
    """
    settings, store = as_settings(settings), as_store(store)
    device, folder = pick_device(settings.device), RunFolder(as_path("a folder for the run", out))
    data = fingerprint(store, labels, settings.split)
    if folder.check(settings, data):
        raise UsageError(
            f"{folder.path} holds a finished run with these settings: nothing to do. Evaluate it, or choose another "
            "folder for --out."
        )
    settings = folder.decided(settings, device)
    check_training(settings, store.widths, len(data.get("train", ())), device)
    devices = [device] if device.type == "cuda" else []
    # Torch's global random state is left as it was; convolutions are to be repeatable meanwhile, and never in TF32.
    cudnn = torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False)
    with torch.random.fork_rng(devices=devices), cudnn, threads(settings.threads):
        planned = measured(settings.model_options(store.widths))
        fps, training, validation, unlabelled = load(pool or Pool(store), labels, settings, planned, device)
        torch.manual_seed(settings.seed)
        model = build_model(**settings.model_options(store.widths, int(training.annotated.sum()))).to(device)
        folder.begin(settings, data)
        if store.provenance.untrained:
            log.warning("the features come from untrained backbones: %s", ", ".join(store.provenance.untrained))
        if model.spec.fit and settings.loss == "gaussian":
            name = settings.model
            log.warning("loss=gaussian means nothing to %s, which has no loss: it does not say how sure it is", name)
        make = Fitting if model.spec.fit else Learning
        run = make(folder, settings, model, training, validation, store, fps)
        resumed_at = run.resume()
        run.learn(on_epoch or (lambda row: None))
        on_end(validation, run.finish(unlabelled))
    return {
        "run": str(folder.path),
        "epochs": run.progress.epoch,
        "resumed_at": resumed_at,
        "best": run.progress.best,
        "unlabelled": unlabelled,
        "left_out": {**training.left_out, **validation.left_out},
    }


def load(
    pool: Pool, labels: Path | str, settings: TrainSettings, model: FusionModel, device: torch.device
) -> tuple[float | None, Corpus, Corpus, int]:
    """The model's frame rate, training and validation data, and how many videos of the store have no label. Raises as
    `train` does for data that does not fit."""
    store, files = pool.store, partition_files(labels, "train", settings.split)
    fps = choose_rate(store, filter(store.__contains__, files), settings.fps)
    views = {"train": settings.views and not model.spec.fit, "validation": False}
    training, validation = labelled_corpora(pool, labels, views, settings, model.targets, device, fps)
    if otherwise := read_otherwise(training.other_rates + validation.other_rates, fps):
        log.warning(otherwise)
    for name, why in {**training.left_out, **validation.left_out}.items():
        log.warning("video %s is left out: %s", name, why)
    for partition, corpus in (("training", training), ("validation", validation)):
        if not (corpus.annotated & corpus.any_present()).any():
            raise AffuseError(f"No frame of the {partition} videos has both a label and features. Check {labels}.")
    labelled = find_labels(labels, settings.split).values()
    return fps, training, validation, len(set(store.ids).difference(*labelled))
