"""One run of several seeds: each is trained as ever, and all predict together. How far they are apart, and how far off
they all are on validation videos, is how sure they are (Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable
Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017, arXiv 1612.01474)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from affuse.config import resolve
from affuse.errors import UsageError
from affuse.files import as_path, make_folder, sha256_of
from affuse.fuse.data.corpus import Features, as_store, fingerprint
from affuse.fuse.reports.tables import write_json
from affuse.fuse.scoring.evaluate import score, unexplained
from affuse.fuse.training.checkpoint import RunFolder, taken
from affuse.fuse.training.run import load_run
from affuse.fuse.training.settings import TrainSettings, as_settings
from affuse.fuse.training.train import train


def train_seeds(
    store: Features,
    labels: Path | str,
    out: Path | str,
    seeds: Sequence[int],
    settings: TrainSettings | None = None,
    on_epoch: Callable[[dict], None] | None = None,
) -> dict:
    """Train a run for each seed in `<out>/seed<k>`, and leave in `out` what makes one run of them. What is there
    already is not trained again: more seeds may be asked for later.

    Gives {"run", "seeds", "ccc": {target: …, "mean": …}, "alone": the mean of each seed's own}; raises as `train` does.
    """
    settings, store = as_settings(settings), as_store(store)
    folder = RunFolder(as_path("a folder for the run", out))
    if folder.config.exists():
        raise UsageError(f"{folder.path} holds a run of one seed. Choose another folder for --out.")
    if not folder.ensemble.exists() and taken(folder.path) and not any(folder.path.glob("seed*/config.yaml")):
        raise UsageError(f"{folder.path} is not empty and holds no run. Choose another folder for --out.")
    each = [resolve(TrainSettings, settings.model_dump(), {"seed": seed}) for seed in dict.fromkeys(seeds)]
    if not each:
        raise UsageError("A run of several seeds needs at least one. Give seeds, for example [0, 1, 2].")
    data = fingerprint(store, labels, settings.split)
    make_folder(folder.path)
    runs = []
    for own in each:
        member = folder.member(own.seed)
        if not member.holds(own, data):
            train(store, labels, member.path, own, on_epoch)
        runs.append(load_run(member.path))
    first, *others = runs
    together = replace(first, others=tuple(others), noise=np.zeros(len(first.model.targets)))
    corpus, estimate = together.predict_partition(store, labels, "validation", settings.device)
    noise = unexplained(corpus, estimate)
    folder.show(corpus, estimate.widened(noise))
    ccc = score(corpus, estimate.values)["ccc"]
    result = {
        "ccc": ccc,
        "alone": {target: float(np.mean([run.best["ccc"][target] for run in runs])) for target in ccc},
    }
    made = {own.seed: sha256_of(folder.member(own.seed).model) for own in each}
    write_json(folder.ensemble, {"seeds": made, "noise": noise.tolist(), **result})
    return {"run": str(folder.path), "seeds": [own.seed for own in each], **result}
