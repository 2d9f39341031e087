"""Aff-Wild2 from the challenge's folders to the papers' table: check, extract, train official split and six folds,
ensemble, table with the published numbers beside ours, submission file.

Everything is kept in one folder and made only once: run again after a stop, or with more models, it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from affuse.console import Announce
from affuse.errors import UsageError
from affuse.extract.settings import ExtractSettings
from affuse.features.store import FeatureStore
from affuse.files import make_folder, write_text
from affuse.fuse import TrainSettings
from affuse.fuse.reports.tables import write_json
from affuse.pipelines.aff_wild2.data import check, discover, six_folds, write_submission
from affuse.pipelines.recipes.dataset import About
from affuse.pipelines.steps import extract_all, refuse_missing, refuse_unreadable, refuse_untrainable, train_all

AFF_WILD2 = About(
    "aff-wild2", "Aff-Wild2", "videos in the wild with face crops; a rating of every frame",
    "EULA", "https://sites.google.com/view/dimitrioskollias/databases/aff-wild2",
)  # fmt: skip
OFFICIAL, FOLD1 = "fold0", "fold1"
# CCC of valence and arousal as their authors print them: on validation videos without a word on which split, on the
# official validation set, on fold 1, on the test set; None where they print none.
PUBLISHED = [
    ("ABAW6 baseline", None, (0.240, 0.200), None, (0.211, 0.191)),
    ("Kuhnke et al. (concatenation)", (0.493, 0.604), None, None, None),
    ("leader–follower 2021", (0.457, 0.645), None, None, (0.463, 0.492)),
    ("LFAN (ABAW3)", None, None, None, (0.520, 0.602)),
    ("CA", (0.552, 0.531), None, None, None),
    ("JCA (smoothed, −5 kept as 0)", (0.663, 0.584), None, None, (0.374, 0.363)),
    ("RCMA v1", (0.585, 0.659), None, None, (0.542, 0.619)),
    ("RJCMA", None, (0.455, 0.652), (0.585, 0.674), (0.542, 0.619)),
    ("GRJCA / HGRJCA best", (0.623, 0.660), None, None, (0.561, 0.620)),
]


def run_aff_wild2(
    root: Path,
    out: Path,
    models: Sequence[str],
    extraction: ExtractSettings,
    training: TrainSettings,
    *,
    test_list: Path | None = None,
    sample: Path | None = None,
    features: Path | None = None,
    ensemble: str = "mean",
    allow_missing: bool = False,
    jobs: int | None = 1,
    on_epoch: Callable[[dict], None] | None = None,
    announce: Announce = lambda text: None,
    **how: Any,
) -> dict:
    """Run the recipe in `out`. features: a store to use instead of extracting, with the challenge's video names; jobs
    and on_epoch: as `crossval_each` has them; how: weights_dir, allow_untrained, compute and progress of
    `extract_jobs`.

    Gives {"check", "models": {model: what crossval gives, and "submission"}, "table"}. Raises UsageError for a folder
    that is not the data set, AffuseError for videos that are missing (unless `allow_missing`) or cannot be extracted.
    """
    refuse_untrainable(models, training, jobs)
    data = discover(root, test_list)
    report = check(data)
    write_json(make_folder(out) / "check.json", report)
    refuse_missing(report, root, allow_missing, features)
    refuse_unreadable(report)
    if not features and extraction.faces != "given":
        raise UsageError("Aff-Wild2 brings its face crops; extraction must take them (faces=given).")
    if features:
        store = FeatureStore(features)
    else:
        store = extract_all(data.jobs(), out / "store", extraction, announce=announce, **how)

    def submit(folder: Path, result: dict) -> None:
        if sample:
            result["submission"] = write_submission(sample, folder / "ensemble", folder / "submission.txt")

    training = training.model_copy(update={"allow_missing": allow_missing})
    results = train_all(
        models, store, data.labels, out, six_folds(data), training, announce=announce, ensemble=ensemble,
        jobs=jobs, on_epoch=on_epoch, finish=submit,
    )  # fmt: skip
    text = table(results)
    write_text(out / "table.txt", text + "\n")
    return {"check": report, "models": results, "table": text}


def table(results: dict[str, dict]) -> str:
    """Published numbers and ours, CCC of valence / arousal. The official validation set and fold 1 are two things."""
    columns = ("official val.", "fold 1", "val., split unsaid", "six folds", "test")
    lines = ["CCC valence / arousal on Aff-Wild2", f"{'':30}" + "".join(f"{name:>20}" for name in columns)]
    for name, unsaid, official, fold1, test in PUBLISHED:
        lines.append(f"{name:30}" + "".join(map(_pair, (official, fold1, unsaid, None, test))))
    for model, result in results.items():
        scores = [result["folds"][OFFICIAL]["ccc"], result["folds"][FOLD1]["ccc"], None, result["ccc"], None]
        pairs = [(score["valence"], score["arousal"]) if score else None for score in scores]
        lines.append(f"{'ours: ' + model:30}" + "".join(map(_pair, pairs)))
    lines += [
        "Six folds: CCC over all out-of-fold predictions together. Backbones are frozen here; the published systems",
        "fine-tune theirs. Every epoch is chosen on the fold it is scored on, as in the papers.",
    ]
    return "\n".join(lines)


def _pair(values: tuple[float, float] | None) -> str:
    return f"{f'{values[0]:.3f} / {values[1]:.3f}' if values else '–':>20}"
