"""One run of several seeds: each is trained as ever, and all predict together. How far they are apart, and how far off
they all are on validation videos, is how sure they are (Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable
Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017, arXiv 1612.01474)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from affuse.config import resolve
from affuse.errors import UsageError
from affuse.files import as_path, make_folder, sha256_of
from affuse.fuse.data.corpus import Features, as_store
from affuse.fuse.data.fingerprint import fingerprint
from affuse.fuse.data.pool import Pool
from affuse.fuse.models.registry import find
from affuse.fuse.reports.tables import write_json
from affuse.fuse.scoring.estimate import Estimate
from affuse.fuse.scoring.evaluate import score, unexplained
from affuse.fuse.training.checkpoint import RunFolder, blaming, taken
from affuse.fuse.training.loading import load_run
from affuse.fuse.training.parallel import Trained, Training, train_each
from affuse.fuse.training.settings import TrainSettings, as_settings


def train_seeds(
    store: Features,
    labels: Path | str,
    out: Path | str,
    seeds: Sequence[int],
    settings: TrainSettings | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    jobs: int | None = 1,
) -> dict:
    """Train a run for each seed in `<out>/seed<k>`, so many at the same time, and leave in `out` what makes one run of
    them. Seeds that are there already stay, and are not trained again.

    Gives {"run", "seeds", "ccc": {target: …, "mean": …}, "alone": the mean of each seed's own}. Raises as `train` does,
    before any training, where a seed is there with other settings, and UsageError for fewer than two seeds.
    """
    settings, store = as_settings(settings), as_store(store)
    folder = RunFolder(as_path("a folder for the run", out))
    if folder.config.exists():
        raise UsageError(f"{folder.path} holds a run of one seed. Choose another folder for --out.")
    if not folder.ensemble.exists() and taken(folder.path) and not any(folder.path.glob("seed*/config.yaml")):
        raise UsageError(f"{folder.path} is not empty and holds no run. Choose another folder for --out.")
    if find(settings.model).fit:
        raise UsageError(f"Every seed of {settings.model!r} is the same: its weights are not drawn. Train it without.")
    try:
        seeds = dict.fromkeys([*_together_already(folder), *seeds])
    except TypeError:
        raise UsageError(f"Seeds are whole numbers, for example [0, 1, 2], not {seeds!r}.") from None
    if len(seeds) < 2:
        raise UsageError("A run of several seeds needs two at least, for example [0, 1, 2].")
    each = [resolve(TrainSettings, settings.model_dump(), {"seed": seed}) for seed in seeds]
    data = fingerprint(store, labels, settings.split)
    trainings = [Training(f"seed {own.seed}", folder.member(own.seed), own) for own in each]
    for run in trainings:
        run.folder.check(run.settings, data)
    make_folder(folder.path)
    made: dict[int, Trained] = {}
    train_each(Pool(store, shared=jobs != 1), labels, trainings, jobs, on_epoch=on_epoch, on_end=made.__setitem__)
    runs = [load_run(run.folder.path) for run in trainings]
    corpus, estimate = made[0].corpus, Estimate.together([made[number].estimate for number in range(len(runs))])
    noise = unexplained(corpus, estimate)
    folder.show(corpus, estimate.widened(noise), settings.model)
    ccc = score(corpus, estimate.values)["ccc"]
    result = {
        "ccc": ccc,
        "alone": {target: float(np.mean([run.best["ccc"][target] for run in runs])) for target in ccc},
    }
    digests = {own.seed: sha256_of(folder.member(own.seed).model) for own in each}
    write_json(folder.ensemble, {"seeds": digests, "noise": noise.tolist(), **result})
    return {"run": str(folder.path), "seeds": [own.seed for own in each], **result}


def _together_already(folder: RunFolder) -> list[int]:
    """The seeds that make the run in a folder."""
    if not folder.ensemble.exists():
        return []
    with blaming(folder.ensemble):
        return [int(seed) for seed in json.loads(folder.ensemble.read_bytes())["seeds"]]
