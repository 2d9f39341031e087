"""What every recipe does: videos into a store, a cross-validation for each model, missing videos refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from affuse.config import resolve
from affuse.console import Announce
from affuse.errors import AffuseError, counted, listed
from affuse.extract.extraction import extract_jobs
from affuse.extract.settings import ExtractSettings
from affuse.extract.summary import describe
from affuse.extract.videos import Job
from affuse.features.store import FeatureStore
from affuse.fuse import TrainSettings
from affuse.fuse.experiments.crossval import crossval_each
from affuse.fuse.experiments.folds import Fold
from affuse.fuse.experiments.trials import folder_name
from affuse.fuse.models.registry import find
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.parallel import Training, how_many


def refuse_untrainable(models: Sequence[str], training: TrainSettings, jobs: int | None) -> None:
    """Raise UsageError, before hours of extraction, for a model that does not exist and for jobs that cannot be."""
    for model in models:
        find(model)
    how_many(jobs, [Training(model, RunFolder(Path(model)), training) for model in models])


def extract_all(
    jobs: list[Job], out: Path, settings: ExtractSettings, *, announce: Announce, **how: Any
) -> FeatureStore:
    """All of them in the store at `out`; how: as `extract_jobs`. Raises AffuseError for the first that fails."""
    summary, _ = extract_jobs(jobs, out, settings, announce=announce, **how)
    announce(describe(summary))
    if summary.failed:
        video, why = next(iter(summary.failed.items()))
        raise AffuseError(f"{counted(len(summary.failed), 'video')} could not be extracted; first {video}: {why}")
    return FeatureStore(out)


def train_all(
    models: Sequence[str], store: FeatureStore, labels: Path, out: Path, folds: Sequence[Fold], training: TrainSettings,
    *, announce: Announce, finish: Callable[[Path, dict], None] = lambda folder, result: None, **how: Any,
) -> dict[str, dict]:  # fmt: skip
    """{model: what `crossval` gives}, each in a folder of its own below `out`; how: more of the arguments of
    `crossval_each`. `finish` may add to a result."""
    own = {m: (out / folder_name(m), resolve(TrainSettings, training.model_dump(), {"model": m})) for m in models}

    def tell(model: str, fold: str, made: bool) -> None:
        announce(f"{model}, {fold}: {'trained' if made else 'there'}")

    results = crossval_each(store, labels, own, folds, on_fold=tell, **how)
    for model, result in results.items():
        finish(own[model][0], result)
    return results


def refuse_missing(report: dict, root: Path, allow_missing: bool, features: Path | None) -> None:
    """Raise AffuseError for videos without media, unless they may be missing or features are given."""
    missing = [] if features or allow_missing else report["without_media"]
    if missing:
        raise AffuseError(
            f"{counted(len(missing), 'video')} without a media file below {root}: {listed(missing)}. "
            "Unpack the rest, or go on without them: --allow-missing."
        )


def refuse_unreadable(report: dict, advice: str = "") -> None:
    """Raise AffuseError for files that cannot be read, each a line, and what to do."""
    if report["unreadable"]:
        raise AffuseError("\n".join([*report["unreadable"].values(), *([advice] if advice else [])]))
