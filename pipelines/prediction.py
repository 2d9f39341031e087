"""New videos end to end: their features made exactly as the run's were, then the run's predictions."""

from __future__ import annotations

from pathlib import Path

from affuse.config import resolve
from affuse.console import Announce, Progress
from affuse.errors import AffuseError, UsageError
from affuse.extract.extraction import Compute, extract_jobs
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import find_jobs
from affuse.features.record import Provenance
from affuse.fuse import predict
from affuse.fuse.training.run import load_run


def predict_videos(
    run_path: Path,
    videos: list[Path],
    out: Path,
    *,
    weights_dir: Path | None = None,
    device: str = "auto",
    announce: Announce = lambda text: None,
    progress: Progress = lambda line, failure, last: None,
) -> dict:
    """Predict on video files. Features are kept below `<out>/features`, so that a second call is quick.

    Gives {"written": {id: …}, "failed": {id: why}} as fuse.predict does. Raises UsageError where the run was trained
    on features that video files alone cannot give, AffuseError where the weights here are not the run's.
    """
    run = load_run(run_path)
    try:
        settings = resolve(ExtractSettings, run.provenance.settings, {"views": "centre"})
    except UsageError as error:
        raise UsageError(
            f"The run {run_path} was trained on features that `affuse extract` does not make: {error} Use "
            "`affuse fuse predict --features` with features of the same kind."
        ) from None
    for given, option in ((settings.faces, "face crops"), (settings.transcripts, "transcripts")):
        if given == "given":
            raise UsageError(
                f"The run {run_path} was trained on features from given {option}. Extract the new videos with "
                "`affuse extract` and the same settings, then use `affuse fuse predict --features`."
            )
    jobs = find_jobs(videos)

    def accept(provenance: Provenance) -> None:
        if differences := run.differences(provenance):
            raise AffuseError(
                f"Features made here would not be as those that {run_path} was trained on: {differences}. Give the "
                "run's weights with --weights-dir, or train again with these."
            )

    store = out / "features" / run.provenance.settings_hash[:12]
    summary, _ = extract_jobs(
        jobs, store, settings, weights_dir=weights_dir, allow_untrained=bool(run.provenance.untrained),
        compute=Compute(device), retry_failed=True, announce=announce, progress=progress, accept=accept,
    )  # fmt: skip
    there = [job.id for job in jobs if job.id not in summary.failed]
    result = predict(run, store, out, there, device) if there else {"written": {}, "failed": {}}
    return {"written": result["written"], "failed": {**summary.failed, **result["failed"]}}
