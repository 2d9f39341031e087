"""Apply a finished run to videos that have features and no labels: one CSV and one figure for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from affuse.features import FeatureStore
from affuse.fuse.data.corpus import Windows, load_corpus
from affuse.fuse.reports import figures as report
from affuse.fuse.scoring.evaluate import predict_frames
from affuse.fuse.training.run import Run, file_name, load_run, write_predictions

from affuse.config import nearest
from affuse.device import pick_device
from affuse.errors import AffuseError, UsageError


def predict(
    run: Path | Run,
    store: Path | FeatureStore,
    out: Path,
    ids: Iterable[str] | None = None,
    device: str = "auto",
    figures: bool = True,
) -> dict:
    """Write `<out>/<video>.csv` (time, targets, valid) and a figure for every video of the store, or those in
    `ids`.

    One video is in memory at a time. Gives {"written": {id: {"csv", "figure", "frames", "valid"}}, "failed":
    {id: why}}; a video without any of the run's modalities fails and the others go on. Raises AffuseError for
    features made otherwise than the run's, UsageError for an id that the store does not have.
    """

    def make(run: Run, windows: Windows, stem: Path) -> dict:
        corpus = windows.corpus
        prediction = predict_frames(run.model, windows, run.settings.batch, run.settings.precision)
        present = corpus.any_present().cpu().numpy()
        table, figure = stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.png")
        write_predictions(table, corpus.time, corpus.targets, prediction, present)
        if figures:
            report.traces(figure, corpus.videos[0], corpus.time, corpus.targets, prediction, present)
        return {
            "csv": str(table),
            "figure": str(figure) if figures else None,
            "frames": len(present),
            "valid": int(present.sum()),
        }

    return for_each_video(run, store, out, ids, device, make)


def for_each_video(
    run: Path | Run,
    store: Path | FeatureStore,
    out: Path,
    ids: Iterable[str] | None,
    device: str,
    make: Callable[[Run, Windows, Path], dict],
) -> dict:
    """Call make(run on the device, windows of one video, `<out>/<video>` without suffix) for video after video.

    Gives {"written": {id: what make gave}, "failed": {id: why}}, and raises as `predict` does.
    """
    run = run if isinstance(run, Run) else load_run(run)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    run.check_features(store)
    ids = list(store.ids if ids is None else ids)
    if unknown := [video for video in ids if video not in store]:
        raise UsageError(
            f"Video {unknown[0]!r} is not in the store {store.path}{nearest(unknown[0], store.ids)}"
        )
    target, out = pick_device(device), Path(out)
    run = replace(run, model=run.model.to(target), normalisation=run.normalisation.to(target))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Output folder {out} cannot be made: {error.strerror}.") from None
    written, failed = {}, {}
    for video in ids:
        try:
            corpus = load_corpus(
                store, [video], run.settings.modalities, list(run.model.targets), device=target
            )
        except AffuseError as error:
            failed[video] = str(error)
            continue
        windows = Windows(corpus, run.settings.window, run.settings.hop, run.normalisation)
        written[video] = make(run, windows, out / file_name(video))
    return {"written": written, "failed": failed}
