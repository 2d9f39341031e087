"""Train several models with several seeds under one protocol, once each, and score them all on the same frames.

`compare` and `ablate` both stand on this. A folder of trials can be stopped at any moment and gone on with: a finished
run is taken as it is, an unfinished one goes on from its checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from features import FeatureStore
from features.errors import AffuseError, UsageError
from fuse.bootstrap import Difference, moments, paired_bootstrap
from fuse.entries import Entry
from fuse.evaluation import pairs, predict_partition, score_pairs
from fuse.fingerprint import Fingerprint, changes, fingerprint, keep
from fuse.run import RunFolder, load_run, taken
from fuse.training import train

log = logging.getLogger("affuse")

DATA = "data.json"  # what all runs are made from


@dataclass(frozen=True)
class Trials:
    """What every model and seed came to on the validation videos.

    scores     one row per model and seed: model, seed, the CCC of each target, mean, videos, parameters, epochs,
               best_epoch, seconds_per_epoch (median), run
    histories  {(model, seed): metrics.csv as a table}
    sums       {model: {video: (seeds, 6, targets)}}, the moments of `fuse.bootstrap`
    """

    targets: list[str]
    seeds: list[int]
    scores: pd.DataFrame
    histories: dict[tuple[str, int], pd.DataFrame]
    sums: dict[str, dict[str, np.ndarray]]

    def summary(self) -> pd.DataFrame:
        """One row per model, in order: mean and sample standard deviation over seeds (NaN for one seed) of each CCC.

        Columns: for every target and mean, `<name>` and `<name>_sd`; then seeds, videos, parameters,
        seconds_per_epoch.
        """
        columns = [*self.targets, "mean"]
        grouped = self.scores.groupby("model", sort=False)
        mean, spread = grouped[columns].mean(), grouped[columns].std(ddof=1)
        table = {}
        for column in columns:
            table |= {column: mean[column], f"{column}_sd": spread[column]}
        table |= {
            "seeds": grouped.size(),
            "videos": grouped["videos"].min(),
            "parameters": grouped["parameters"].first(),
        }
        return pd.DataFrame({**table, "seconds_per_epoch": grouped["seconds_per_epoch"].median()})

    def difference(self, one: str, other: str) -> tuple[Difference, int]:
        """The paired bootstrap of CCC(one) − CCC(other), and how many videos both have predictions for."""
        videos = [video for video in self.sums[one] if video in self.sums[other]]
        if not videos:
            raise AffuseError(f"{one} and {other} have no video in common that both can predict.")
        pair = (np.stack([self.sums[name][video] for video in videos], 1) for name in (one, other))
        return paired_bootstrap(*pair), len(videos)


def run_trials(
    store: FeatureStore,
    labels: Path,
    out: Path,
    entries: list[Entry],
    seeds: list[int],
    announce: Callable[[str], None],
    on_epoch: Callable[[dict], None] | None = None,
) -> Trials:
    """Train what is not trained yet into `<out>/runs/<model>-seed<k>`, and score everything.

    Entries that are the same model share their runs. Raises before any training: UsageError for a run folder that is
    taken by another run, AffuseError where the folder's runs were made from other data. What a training raises is
    raised with the model's name in front.
    """
    owners: dict[str, Entry] = {}
    for entry in entries:
        owners.setdefault(entry.identity, entry)
    plan = [
        (e, seed, RunFolder(out / "runs" / f"{e.folder}-seed{seed}"))
        for e in owners.values()
        for seed in seeds
    ]
    data = fingerprint(store, labels, entries[0].settings)
    _check_folder(out, data)
    for entry, seed, folder in plan:
        if not folder.holds(entry.seeded(seed), data):
            folder.check(entry.seeded(seed), data)
    rows, histories, sums = {}, {}, {}
    with _each_warning_once():
        for number, (entry, seed, folder) in enumerate(plan, 1):
            which = f"[{number}/{len(plan)}] {entry.name}, seed {seed}"
            try:
                made = not folder.finished
                if made:
                    announce(f"{which}: training")
                    train(store, labels, folder.path, entry.seeded(seed), on_epoch)
                key = (entry.identity, seed)
                rows[key], histories[key], sums[key] = _score(folder, store, labels, entry.settings.device)
            except AffuseError as error:
                raise type(error)(f"{entry.name}, seed {seed}: {error}") from None
            announce(f"{which}: validation CCC {rows[key]['mean']:.3f}{'' if made else ' (trained before)'}")
    scores = [{"model": e.name, "seed": seed, **rows[e.identity, seed]} for e in entries for seed in seeds]
    return Trials(
        list(entries[0].targets),
        list(seeds),
        pd.DataFrame(scores),
        {(e.name, seed): histories[e.identity, seed] for e in entries for seed in seeds},
        {e.name: _stack([sums[e.identity, seed] for seed in seeds]) for e in entries},
    )


def _stack(seeds: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {video: np.stack([sums[video] for sums in seeds]) for video in seeds[0]}


def _score(
    folder: RunFolder, store: FeatureStore, labels: Path, device: str
) -> tuple[dict, pd.DataFrame, dict]:
    """A finished run's row, its history, and the moments of each annotated video."""
    run = load_run(folder.path)
    corpus, prediction = predict_partition(run, store, labels, "validation", device)
    found = pairs(corpus, prediction)
    sums = {video: moments(truth, predicted) for video, (truth, predicted) in found.items()}
    history = pd.read_csv(folder.metrics)
    row = {
        **score_pairs(found, corpus.targets)["ccc"],
        "videos": len(sums),
        "parameters": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "epochs": len(history),
        "best_epoch": run.best["epoch"],
        "seconds_per_epoch": float(history["seconds"].median()),
        "run": str(folder.path),
    }
    return row, history, sums


def _check_folder(out: Path, data: Fingerprint) -> None:
    """Make the folder, or see that what is in it comes from these features and labels."""
    file = out / DATA
    if file.exists():
        if changed := changes(file, data):
            raise AffuseError(
                f"The runs in {out} were made from other data: {changed}. Choose another folder for --out, or bring "
                "the data back."
            )
        return
    if taken(out):
        raise UsageError(f"{out} is not empty and holds no comparison. Choose another folder for --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Output folder {out} cannot be made: {error.strerror}.") from None
    keep(file, data)


@contextmanager
def _each_warning_once() -> Iterator[None]:
    """What concerns the data is said by the first training, not by all of them."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message in said or said.add(message))

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)
