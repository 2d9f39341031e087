"""A data set from its folder to a table: check, extract, labels in affuse's own files, its split or folds that keep
subjects together, training, and the published numbers beside ours.

Everything is kept in one folder and made only once: run again after a stop, or with more models, it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from affuse.config import read_yaml
from affuse.console import Announce
from affuse.errors import UsageError, counted
from affuse.extract.settings import ExtractSettings
from affuse.features.store import FeatureStore
from affuse.files import make_folder, publish, write_text
from affuse.fuse import TrainSettings, choose_folds
from affuse.fuse.experiments.folds import FOLD, SUBJECT, VIDEO, Fold
from affuse.fuse.reports.tables import aligned, write_csv, write_json
from affuse.pipelines.recipes.dataset import DataSet, Recipe, check, find_data
from affuse.pipelines.recipes.joining import join_all
from affuse.pipelines.recipes.media import contained
from affuse.pipelines.recipes.ratings import Ratings, apart, from_unit, label_file, settle
from affuse.pipelines.steps import extract_all, refuse_missing, refuse_unreadable, refuse_untrainable, train_all

SPLITS = ("official", "subject")
FOLDS = 5  # of subjects, where the field has none of its own
CHECK, LABELS, OWN_SCALE = "check.json", "labels", "own_scale"  # in the folder of a run, the last in a model's


def run_recipe(
    recipe: Recipe,
    root: Path,
    out: Path,
    models: Sequence[str],
    extraction: ExtractSettings,
    training: TrainSettings,
    *,
    gold: str = "published",
    split: str | None = None,
    features: Path | None = None,
    ensemble: str = "mean",
    allow_missing: bool = False,
    jobs: int | None = 1,
    on_epoch: Callable[[dict], None] | None = None,
    announce: Announce = lambda text: None,
    **how: Any,
) -> dict:
    """Run a recipe in `out`. gold: see `gold_standard`; split: official, or subject for folds that keep subjects
    together, and by default official where there is one; features: a store to use instead of extracting, with the data
    set's names; jobs and on_epoch: as `crossval_each` has them; how: weights_dir, allow_untrained, compute and progress
    of `extract_jobs`.

    Gives {"check", "models": {model: what crossval gives}, "table"}. Raises UsageError for a folder that is not the
    data set, AffuseError for videos that are missing or files that cannot be read, unless `allow_missing`.
    """
    if (out / LABELS).exists() and not (out / CHECK).exists():
        raise UsageError(f"{out / LABELS} is there already, and not a recipe's. Choose another folder for --out.")
    refuse_untrainable(models, training, jobs)
    data = find_data(recipe, root)
    report = check(data)
    write_json(make_folder(out) / CHECK, report)
    refuse_missing(report, root, allow_missing, features)
    if not allow_missing:
        refuse_unreadable(report, "Unpack them again, or go on without them: --allow-missing.")
    by = split or SPLITS[not data.split]
    if by not in SPLITS or (by == "official" and not data.split):
        raise UsageError(
            f"{recipe.title} has no split {by!r}. It has: {', '.join(SPLITS if data.split else SPLITS[1:])}."
        )
    ratings = settle(data.ratings, gold)
    if features:
        store = FeatureStore(features)
    else:
        videos = contained([job for job in data.jobs() if job.id not in report["unreadable"]], out / "media")
        store = extract_all(videos, out / "store", extraction, announce=announce, **how)
    if any(recording.apart for recording in data.recordings):
        store, ratings = join_all(store, data.recordings, ratings, out / "joined", allow_missing)
    elif allow_missing:
        ratings = {name: own for name, own in ratings.items() if name in store}
    write_labels(data, ratings, out / LABELS)
    folds = (official_fold if by == "official" else subject_folds)(data, ratings, out)
    test = data.split and any(one.partition == "test" and one.id in ratings for one in data.recordings)
    results = train_all(
        models, store, out / LABELS, out, folds, training, announce=announce, ensemble=ensemble, score_test=test,
        jobs=jobs, on_epoch=on_epoch, finish=lambda folder, result: write_back(recipe, folder),
    )  # fmt: skip
    text = table(recipe, results, f"{by} validation" if by == "official" else f"out of {counted(len(folds), 'fold')}")
    write_text(out / "table.txt", text + "\n")
    return {"check": report, "models": results, "table": text}


def defaults(recipe: Recipe, config: Path | None) -> dict[str, list[str]]:
    """The data set's own target and modalities, but for those that a settings file names."""
    said = read_yaml(config) if config else {}
    own = {"target": list(recipe.target), "modalities": list(recipe.modalities)}
    return {key: value for key, value in own.items() if key not in said}


def write_labels(data: DataSet, ratings: dict[str, Ratings], out: Path) -> None:
    """A label file per recording below its partition in `out`, which is made anew."""

    def fill(folder: Path) -> None:
        for recording in data.recordings:
            if recording.id in ratings:
                suffix, text = label_file(apart(ratings[recording.id]), data.recipe.scales)
                path = folder / recording.partition / f"{recording.id}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

    publish(out, fill, folder=True)


def official_fold(data: DataSet, ratings: dict[str, Ratings], out: Path) -> list[Fold]:
    """The data set's own split as the one fold. Raises UsageError where its validation partition has nothing."""
    videos = tuple(one.id for one in data.recordings if one.partition == "validation" and one.id in ratings)
    if not videos:
        raise UsageError(f"Nothing of the validation partition of {data.recipe.title} is there: --split subject.")
    return [Fold("official", videos)]


def subject_folds(data: DataSet, ratings: dict[str, Ratings], out: Path) -> list[Fold]:
    """Folds of all labelled recordings but those of the test partition: those of the field, or about as large ones that
    keep each subject in one. `videos.csv` in `out` is their table."""
    rows = [one for one in data.recordings if one.id in ratings and one.partition != "test"]
    own = all(one.fold for one in rows)
    quoted = [[one.id, one.subject, *([one.fold] if own else [])] for one in rows]
    lines = [",".join('"' + field.replace('"', '""') + '"' for field in row) for row in quoted]
    head = ",".join([VIDEO, SUBJECT, *([FOLD] if own else [])])
    write_text(out / "videos.csv", "\n".join([head, *lines]) + "\n")
    k = min(FOLDS, len({one.subject for one in rows}))
    return choose_folds(out / LABELS, out / "videos.csv", *((FOLD, None) if own else (SUBJECT, k)))


def write_back(recipe: Recipe, folder: Path) -> None:
    """The predictions of a cross-validation once more, on the scale that people rated on, where that is another."""
    scales = {target: scale for target, scale in recipe.scales.items() if scale != (-1, 1)}
    for path in sorted(folder.glob("predictions/*.csv")) + sorted(folder.glob("ensemble/*.csv")) if scales else ():
        rows = pd.read_csv(path)
        for target in scales.keys() & set(rows.columns):
            rows[target] = from_unit(rows[target], *scales[target])
        write_csv(make_folder(folder / OWN_SCALE / path.parent.name) / path.name, rows, "%.6g")


def table(recipe: Recipe, results: dict[str, dict], where: str) -> str:
    """Published CCC and ours, of what, and where a number was read."""
    rows = [(p.method, p.where, p.scores, p.source) for p in recipe.published]
    for model, result in results.items():
        rows.append((f"ours: {model}", where, result["ccc"], ""))
        if "test" in result:
            rows.append((f"ours: {model}", "test", result["test"]["ccc"], ""))
    targets = list(dict.fromkeys(t for _, _, scores, _ in rows for t in scores if t != "mean"))
    cells = [
        [name, of, *(f"{scores[t]:.3f}" if t in scores else "–" for t in targets), source]
        for name, of, scores, source in rows
    ]
    lines = aligned(["", "of", *targets, "source"], cells, str.ljust)
    note = "Backbones are frozen here. Every epoch is chosen on the videos it is scored on, but for test."
    return "\n".join([f"CCC on {recipe.title}", *lines, note])
